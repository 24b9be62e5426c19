"""The plug-in for GIMP with a stand-in for its bindings; docs/hosts/gimp.md says what ran in GIMP."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from maximir.models.catalogue import TASKS

FILE = Path(__file__).parents[2] / "hosts/gimp/maximir-restore/maximir-restore.py"


@pytest.fixture
def plug_in(monkeypatch):
    gi, repository = types.ModuleType("gi"), types.ModuleType("gi.repository")
    gi.require_version = lambda name, version: None
    repository.Gimp = MagicMock(PlugIn=type("PlugIn", (), {"__gtype__": None, "error_quark": lambda: 0}))
    repository.Gio, repository.GLib = MagicMock(), MagicMock()
    monkeypatch.setitem(sys.modules, "gi", gi)
    monkeypatch.setitem(sys.modules, "gi.repository", repository)
    spec = importlib.util.spec_from_file_location("maximir_gimp", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layers(*visible):
    return [MagicMock(get_visible=lambda shown=shown: shown) for shown in visible]


def test_its_tasks_are_ours(plug_in):
    assert tuple(TASKS) == plug_in.TASKS


def test_gimp_finds_it():
    assert FILE.stem == FILE.parent.name and os.access(FILE, os.X_OK)


def test_the_menu_is_there_for_every_kind_of_image(plug_in):
    procedure = plug_in.MaximirRestore().do_create_procedure("plug-in-maximir-denoise")
    procedure.set_image_types.assert_called_once_with("*")


def test_hidden_layers_are_not_restored(plug_in, monkeypatch):
    monkeypatch.setattr(plug_in, "run_supervised", lambda *of: pytest.fail("restored"))
    image = MagicMock(get_layers=lambda: layers(False, False))
    procedure = MagicMock(get_name=lambda: "plug-in-maximir-denoise")
    plug_in.MaximirRestore().run(procedure, None, image, None, None, None)
    assert procedure.new_return_values.call_args[0][0] == plug_in.Gimp.PDBStatusType.EXECUTION_ERROR
    assert "No layer is visible" in plug_in.GLib.Error.new_literal.call_args[0][1]


@pytest.mark.parametrize(
    ("opaque", "selected", "masked", "hidden"),
    [(True, False, False, False), (True, True, True, False), (False, False, False, True)],
)
def test_a_selection_becomes_a_mask_and_a_transparent_original_is_hidden(
    plug_in, opaque, selected, masked, hidden
):
    (below,), layer = layers(True), MagicMock()
    image = MagicMock(get_layers=lambda: [below])
    plug_in.Gimp.Selection.is_empty = lambda image: not selected
    plug_in.insert(image, layer, opaque)
    assert layer.add_mask.called == masked
    assert below.set_visible.called == hidden
    image.insert_layer.assert_called_once_with(layer, None, 0)


@pytest.mark.parametrize("opaque", [True, False])
def test_an_opaque_picture_gets_no_alpha_channel(plug_in, tmp_path, opaque):
    visible = plug_in.Gimp.Layer.new_from_visible.return_value
    visible.histogram.return_value = types.SimpleNamespace(count=9.0 if opaque else 8.0, pixels=9.0)
    assert plug_in.save_visible(MagicMock(), tmp_path / "x.png") == opaque
    assert visible.flatten.called == opaque


def test_an_error_of_the_command_is_passed_on(plug_in, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as error:
        plug_in.run_supervised([sys.executable, "-c", "import sys; sys.exit('no model')"], tmp_path)
    assert error.value.stderr == "no model\n" and tmp_path.is_dir()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="GIMP kills its plug-ins in another way there")
def test_cancel_ends_the_command_and_removes_its_folder(tmp_path):
    """GIMP kills the plug-in: what it started must end without it."""
    folder, started = tmp_path / "folder", tmp_path / "started"
    folder.mkdir()
    command = (
        f"import os, time; print(os.getpid(), file=open({str(started)!r}, 'w'), flush=True); time.sleep(60)"
    )
    script = f"""
        import sys, types
        from unittest.mock import MagicMock
        import importlib.util
        sys.modules["gi"] = MagicMock()
        sys.modules["gi.repository"] = MagicMock(Gimp=MagicMock(PlugIn=type("P", (), {{"__gtype__": None}})))
        spec = importlib.util.spec_from_file_location("plug_in", {str(FILE)!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.run_supervised([sys.executable, "-c", {command!r}], {str(folder)!r})
    """
    plug_in = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    wait_until(lambda: started.exists() and started.read_text())
    plug_in.kill()
    plug_in.wait()
    wait_until(lambda: not folder.exists())
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def wait_until(done, seconds=30):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
