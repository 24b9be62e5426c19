#!/usr/bin/env python3
"""Filters → Enhance → MAXIM in GIMP 3: restore the visible image with the command `maximir`, as a new layer.

UNTESTED: written after GIMP 3.0's documentation, never run in GIMP. Uses only the standard library and GIMP's
bindings. Set MAXIMIR in the environment to the command if it is not on the path.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gi

gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, Gio, GLib  # noqa: E402

TASKS = ("denoise", "deblur", "derain", "dehaze", "enhance", "retouch")
PREFIX = "plug-in-maximir-"


class MaximirRestore(Gimp.PlugIn):
    def do_set_i18n(self, name):
        return False

    def do_query_procedures(self):
        return [PREFIX + task for task in TASKS]

    def do_create_procedure(self, name):
        task = name.removeprefix(PREFIX)
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, self.run, None)
        procedure.set_image_types("RGB*, GRAY*")
        procedure.set_menu_label(task.capitalize())
        procedure.add_menu_path("<Image>/Filters/Enhance/MAXIM")
        procedure.set_documentation(
            f"{task.capitalize()} with MAXIM", "Restore the visible image with maximir, as a new layer", name
        )
        procedure.set_attribution("The maximir authors", "Apache-2.0", "2026")
        return procedure

    def run(self, procedure, run_mode, image, drawables, config, data):
        task = procedure.get_name().removeprefix(PREFIX)
        Gimp.progress_init(f"{task}: maximir is running")
        try:
            with tempfile.TemporaryDirectory() as folder:
                restored = restore(image, task, Path(folder))
                layer = Gimp.file_load_layer(Gimp.RunMode.NONINTERACTIVE, image, restored)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            failed = GLib.Error.new_literal(Gimp.PlugIn.error_quark(), said.strip(), 0)
            return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, failed)
        layer.set_name(task)
        image.insert_layer(layer, None, 0)
        Gimp.displays_flush()
        return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, GLib.Error())


def restore(image, task, folder):
    """Restore the visible image; return the file with the result."""
    before, after = folder / "visible.png", folder / "restored.png"
    copy = image.duplicate()
    copy.merge_visible_layers(Gimp.MergeType.CLIP_TO_IMAGE)
    Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, copy, Gio.File.new_for_path(str(before)), None)
    copy.delete()
    command = os.environ.get("MAXIMIR", "maximir")
    subprocess.run(
        [command, "restore", before, "-o", after, "--task", task], check=True, capture_output=True, text=True
    )
    return Gio.File.new_for_path(str(after))


Gimp.main(MaximirRestore.__gtype__, sys.argv)
