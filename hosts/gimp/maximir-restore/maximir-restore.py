#!/usr/bin/env python3
"""Filters → Enhance → MAXIM in GIMP 3: restore the visible image with the command `maximir`, as a new layer.

Uses only the standard library and GIMP's bindings. Set MAXIMIR in the environment to the command if it is not
on the path.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gi

gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, Gio, GLib  # noqa: E402

TASKS = ("denoise", "deblur", "derain", "dehaze", "enhance", "retouch", "dejpeg")
PREFIX = "plug-in-maximir-"


class MaximirRestore(Gimp.PlugIn):
    def do_set_i18n(self, name):
        return False

    def do_query_procedures(self):
        return [PREFIX + task for task in TASKS]

    def do_create_procedure(self, name):
        task = name.removeprefix(PREFIX)
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, self.run, None)
        procedure.set_image_types("*")
        procedure.set_menu_label(task.capitalize())
        procedure.add_menu_path("<Image>/Filters/Enhance/MAXIM")
        procedure.set_documentation(
            f"{task.capitalize()} with MAXIM",
            "Restore the visible image with maximir, as a new layer; a selection becomes its mask",
            name,
        )
        procedure.set_attribution("The maximir authors", "Apache-2.0", "2026")
        return procedure

    def run(self, procedure, run_mode, image, drawables, config, data):
        task = procedure.get_name().removeprefix(PREFIX)
        if not any(layer.get_visible() for layer in image.get_layers()):
            return failure(procedure, "No layer is visible: show the layers to restore")
        Gimp.progress_init(f"{task}: maximir is running")
        try:
            with tempfile.TemporaryDirectory() as folder:
                before, after = Path(folder, "visible.png"), Path(folder, "restored.png")
                opaque = save_visible(image, before)
                command = os.environ.get("MAXIMIR", "maximir")
                run_supervised([command, "restore", before, "-o", after, "--task", task], folder)
                layer = Gimp.file_load_layer(
                    Gimp.RunMode.NONINTERACTIVE, image, Gio.File.new_for_path(str(after))
                )
        except (OSError, subprocess.CalledProcessError) as error:
            return failure(procedure, getattr(error, "stderr", None) or str(error))
        layer.set_name(task)
        insert(image, layer, opaque)
        Gimp.displays_flush()
        return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, GLib.Error())


def failure(procedure, sentence):
    error = GLib.Error.new_literal(Gimp.PlugIn.error_quark(), sentence.strip(), 0)
    return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, error)


def save_visible(image, path):
    """Save what the user sees as PNG; return True if it is opaque, which is then saved without alpha."""
    copy = image.duplicate()
    Gimp.Selection.none(copy)  # a histogram would count only what is selected
    visible = Gimp.Layer.new_from_visible(copy, copy, "visible")
    for layer in copy.get_layers():
        copy.remove_layer(layer)
    copy.insert_layer(visible, None, 0)
    full = visible.histogram(Gimp.HistogramChannel.ALPHA, 1, 1)
    opaque = full.count == full.pixels
    if opaque:
        visible.flatten()
    Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, copy, Gio.File.new_for_path(str(path)), None)
    copy.delete()
    return opaque


def run_supervised(command, folder):
    """Run a command that ends, and whose folder is removed, also if GIMP kills this plug-in."""
    theirs, ours = os.pipe()  # `ours` closes when this process ends, however it ends
    supervise = Path(__file__).with_name("supervise.py")
    try:
        subprocess.run(
            [sys.executable, supervise, folder, *command],
            check=True,
            stdin=theirs,
            capture_output=True,
            text=True,
        )
    finally:
        os.close(theirs)
        os.close(ours)


def insert(image, layer, opaque):
    """Put the layer on top, masked by the selection. Over a transparent picture, hide what it replaces."""
    image.undo_group_start()
    selected = not Gimp.Selection.is_empty(image)
    if not opaque and not selected:
        for other in image.get_layers():
            other.set_visible(False)
    image.insert_layer(layer, None, 0)
    if selected:
        layer.add_mask(layer.create_mask(Gimp.AddMaskType.SELECTION))
    image.undo_group_end()


Gimp.main(MaximirRestore.__gtype__, sys.argv)
