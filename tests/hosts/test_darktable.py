"""Packages for darktable: their form as its documentation has it, and what ONNX Runtime makes of them."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.main import get_command

from helpers.command import maximir
from maximir import UsageError, images, load_model
from maximir.cli.app import app
from maximir.hosts import darktable, export
from maximir.models import authors
from maximir.models.catalogue import MODELS, TASKS
from maximir.restoring.links import AUTO

CARD = [  # in the order in which darktable shows it
    "long_description",
    "scope",
    "author",
    "source",
    "paper",
    "license",
    "training_data",
    "training_data_license",
    "notes",
]


@pytest.fixture(scope="module")
def package(gentle_weights, tmp_path_factory):
    for needed in export.NEEDED:
        pytest.importorskip(needed)
    output = tmp_path_factory.mktemp("darktable") / "x.dtmodel"
    maximir("export", gentle_weights, "--for", "darktable", "-o", output, "--size", "256")
    return output


@pytest.mark.slow
def test_what_is_in_it(package):
    import onnx

    with zipfile.ZipFile(package) as archive:
        folder = "denoise-maxim-gentle"
        assert archive.namelist() == [
            f"{folder}/{name}" for name in ("config.json", "model.onnx", "README.md")
        ]
        config = json.loads(archive.read(f"{folder}/config.json"))
        model = onnx.load_from_string(archive.read(f"{folder}/model.onnx"))
    assert (config["id"], config["task"], config["backend"]) == (folder, "denoise", "onnx")
    assert config["attributes"] == {"input_sizes": [256]} and config["tiling"] is True
    onnx.checker.check_model(model, full_check=True)
    assert max(opset.version for opset in model.opset_import) <= 20
    for value, name in ((model.graph.input[0], "input"), (model.graph.output[0], "output")):
        kind = value.type.tensor_type
        assert (value.name, kind.elem_type) == (name, onnx.TensorProto.FLOAT)
        assert [dim.dim_value for dim in kind.shape.dim] == [1, 3, 256, 256]


@pytest.mark.slow
def test_a_tile_is_restored_as_by_us(package, gentle_weights):
    import onnxruntime

    with zipfile.ZipFile(package) as archive:
        session = onnxruntime.InferenceSession(archive.read("denoise-maxim-gentle/model.onnx"))
    tile = np.random.default_rng(1).random((1, 3, 256, 256), np.float32)
    with torch.no_grad():
        expected = load_model(gentle_weights)(torch.from_numpy(tile))[-1][-1].numpy()
    assert np.abs(session.run(["output"], {"input": tile})[0] - expected).max() <= 1e-5


@pytest.mark.slow
def test_darktable_shows_the_card_in_the_config(package):
    with zipfile.ZipFile(package) as archive:
        card = json.loads(archive.read("denoise-maxim-gentle/config.json"))["model_card"]
        page = archive.read("denoise-maxim-gentle/README.md").decode()
    assert list(card) == CARD and all(card.values())
    assert "not stated" in card["training_data"] and "not stated" in card["license"]
    assert all(value in page for value in card.values())


@pytest.mark.parametrize("model", [*MODELS, *authors.MODELS], ids=lambda model: model.name)
def test_cards_answer_the_catalogue(model):
    card = darktable.card_of(model)
    assert list(card) == CARD and all(card.values())
    assert "OSAID: Open Weights" in card["notes"] and "MOF: Class III" in card["notes"]
    if model.origin == "box" and model.task == "denoise":
        assert "BSDS500" in card["training_data"] and "PolyU" in card["training_data"]
        assert "non-commercial" in card["training_data_license"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("denoise-box", "denoise-maxim"),
        ("denoise-sidd", "denoise-maxim-sidd"),
        ("runs/My Model_2.safetensors", "denoise-maxim-my-model-2"),
    ],
)
def test_names(name, expected):
    assert darktable.identifier(name) == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["derain"], "darktable only supports denoising models; this one is for derain"),
        (["denoise", "--size", "500"], "--size must be a multiple of 64, not 500"),
        (["denoise", "--size", "192"], "--size must be at least 256 for darktable, not 192"),
        (["denoise", "-o", "x.onnx"], "x.onnx: a darktable package must be named .dtmodel"),
        (["denoise", "--for", "gimp"], "--for gimp: choose darktable or web"),
    ],
)
def test_requests_that_make_no_sense(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "NEEDED", ())
    maximir("export", "--for", "darktable", *arguments, expect=2)
    assert capsys.readouterr().err.startswith(f"maximir: {sentence}")
    assert not list(tmp_path.iterdir())


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "NEEDED", ("package_that_is_not_there",))
    with pytest.raises(UsageError, match=r"pip install 'maximir\[export\]'"):
        darktable.check_request(tmp_path / "x.dtmodel", 512)


def test_the_export_storage_knows_our_tasks_and_options():
    """The Lua script itself ran in darktable: docs/hosts/darktable.md."""
    script = (Path(__file__).parents[2] / "hosts/darktable/maximir.lua").read_text("utf-8")
    (tasks,) = re.findall(r"local TASKS = \{ (.*?) \}", script)
    assert [task.strip('"') for task in tasks.split(", ")] == [AUTO, *TASKS]
    (suffixes,) = re.findall(r"local SUFFIXES = \{ (.*?) \}", script)
    assert set(re.findall(r"(\w+) = true", suffixes)) <= {suffix[1:] for suffix in images.WRITABLE}
    options = {option for each in get_command(app).commands["restore"].params for option in each.opts}
    assert set(re.findall(r'"(--[a-z-]+)"', script)) <= options
