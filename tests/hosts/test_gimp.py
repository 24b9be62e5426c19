"""The plug-in for GIMP cannot be run here: only what can be read from it."""

import ast
import os
from pathlib import Path

from maximir.models.catalogue import TASKS

FILE = Path(__file__).parents[2] / "hosts/gimp/maximir-restore/maximir-restore.py"


def test_its_tasks_are_ours():
    module = ast.parse(FILE.read_text())
    (tasks,) = (
        ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "TASKS"
    )
    assert tasks == tuple(TASKS)


def test_gimp_finds_it():
    assert FILE.stem == FILE.parent.name and os.access(FILE, os.X_OK)
