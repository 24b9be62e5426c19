"""Runs inside GIMP for `scripts/hosts.py --gimp`: the plug-in's cases. The folder is in HOSTS_FOLDER.

Prints a line of JSON for each case: its name, the procedure's status and error.
"""

import json
import os
from pathlib import Path

from gi.repository import Gimp, Gio

folder = Path(os.environ["HOSTS_FOLDER"])
quiet = Gimp.RunMode.NONINTERACTIVE


def load(name):
    return Gimp.file_load(quiet, Gio.File.new_for_path(str(folder / f"{name}.png")))


def denoise(image):
    procedure = Gimp.get_pdb().lookup_procedure("plug-in-maximir-denoise")
    config = procedure.create_config()
    config.set_property("run-mode", quiet)
    config.set_property("image", image)
    config.set_core_object_array("drawables", image.get_layers()[:1])
    status = procedure.run(config).index(0)
    ok = status == Gimp.PDBStatusType.SUCCESS
    return status.value_nick, "" if ok else Gimp.get_pdb().get_last_error()


def hide(image):
    image.get_layers()[0].set_visible(False)


def select(image):
    image.select_rectangle(Gimp.ChannelOps.REPLACE, 20, 20, 40, 40)


def index(image):
    image.convert_indexed(Gimp.ConvertDitherType.NONE, Gimp.ConvertPaletteType.GENERATE, 64, False, False, "")


for name, source, prepare in json.loads(os.environ["HOSTS_CASES"]):
    image = load(source)
    if prepare:
        globals()[prepare](image)
    status, error = denoise(image)
    Gimp.Selection.none(image)
    layers = [(layer.get_visible(), layer.has_alpha()) for layer in image.get_layers()]
    Gimp.file_save(quiet, image.duplicate(), Gio.File.new_for_path(str(folder / f"{name}-gimp.png")), None)
    print("CASE " + json.dumps([name, status, error, layers]), flush=True)
