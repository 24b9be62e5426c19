"""The ComfyUI node in a stand-in (helpers/comfy_stub); scripts/hosts.py runs it in the real ComfyUI."""

import importlib.util
import inspect
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import comfy_stub, spandrel_stub
from maximir import Restorer, UsageError
from maximir.errors import NotEnoughMemory
from maximir.models import checkpoint, user_models
from maximir.restoring import memory

FOLDER = Path(__file__).parents[2] / "hosts/comfyui"
MODEL = "denoise-gentle"


@pytest.fixture
def host(monkeypatch, tmp_path, gentle_weights):
    monkeypatch.setenv("MAXIMIR_HOME", str(tmp_path))
    user_models.path_of(MODEL).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(gentle_weights, user_models.path_of(MODEL))
    host = comfy_stub.Host()
    host.spandrel = spandrel_stub.module()
    for name, module in {**host.modules, "spandrel": host.spandrel}.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("maximir_comfyui", FOLDER / "__init__.py")
    host.package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(host.package)
    (host.node,) = host.load(host.package)
    return host


def test_the_schema_and_execute_agree(host):
    schema = host.node.define_schema()
    assert schema.node_id == "MaximRestore"
    assert [each.id for each in schema.inputs] == list(inspect.signature(host.node.execute).parameters)
    options = schema.inputs[1].options["options"]
    assert options[0] == "denoise" and MODEL in options and len(set(options)) == len(options)
    assert len(schema.outputs) == 1


def test_a_batch_is_restored_one_by_one(host, gentle_weights, monkeypatch):
    monkeypatch.setattr(memory, "is_small", lambda *of: False)  # else there is nothing to tell in between
    image = torch.rand(2, 50, 70, 3)
    before = image.clone()
    (restored,) = host.node.execute(image, MODEL, 0, "fp32").result
    restorer = Restorer(gentle_weights)
    expected = np.stack([restorer(picture.numpy()) for picture in image]).clip(0, 1)
    assert torch.equal(restored, torch.from_numpy(expected))
    assert torch.equal(image, before), "the node's input is others' too"
    values = [value for value, _ in host.progress]
    assert (values[0], values[-1]) == (0, 100) and any(0 < value < 50 for value in values)


def test_progress_shows_each_percent_once(host, monkeypatch):
    def report_often(restorer, image, *, progress, **call):
        for part in np.linspace(0, 1, 2000):
            progress(part)
        return image

    monkeypatch.setattr(Restorer, "__call__", report_often)
    host.node.execute(torch.rand(3, 8, 8, 3), MODEL, 0, "fp32")
    assert host.progress == [(percent, 100) for percent in range(101)]


def test_alpha_stays(host):
    image = torch.rand(1, 64, 64, 4)
    (restored,) = host.node.execute(image, MODEL, 1, "bf16").result
    assert restored.shape == image.shape
    assert torch.equal(restored[..., 3], image[..., 3])
    assert not torch.equal(restored[..., :3], image[..., :3])


def test_one_channel_becomes_three(host):
    image = torch.rand(2, 64, 64, 1)
    (restored,) = host.node.execute(image, MODEL, 0, "fp32").result
    (expected,) = host.node.execute(image.repeat(1, 1, 1, 3), MODEL, 0, "fp32").result
    assert restored.shape == (2, 64, 64, 3) and torch.equal(restored, expected)


@pytest.mark.parametrize("shape", [(64, 64, 3), (0, 64, 64, 3), (1, 0, 64, 3), (1, 64, 64, 2)], ids=str)
def test_other_shapes_are_refused(host, shape):
    with pytest.raises(UsageError, match=r"at least one picture and C = 1, 3 or 4"):
        host.node.execute(torch.zeros(shape), MODEL, 0, "fp32")


def test_an_interruption_ends_a_small_image_midway_and_the_next_run_works(host):
    host.interrupt_at = 7  # the first check is before the network
    with pytest.raises(comfy_stub.InterruptProcessingException):
        host.node.execute(torch.rand(1, 64, 64, 3), MODEL, 0, "fp32")
    assert host.progress == [(0, 100)]
    host.node.execute(torch.rand(1, 64, 64, 3), MODEL, 0, "fp32")
    assert host.progress[-1] == (100, 100)


def test_more_stages_than_there_are(host):
    image = torch.rand(1, 64, 64, 3)
    for stages in (3, -1):  # ComfyUI does not check the range of a value from another node
        (restored,) = host.node.execute(image, MODEL, stages, "fp32").result
        assert torch.equal(restored, host.node.execute(image, MODEL, 0, "fp32").result[0])


@pytest.mark.parametrize("model", ["weights", "/etc/hostname", "hf://owner/repo/x.safetensors", "rain", None])
def test_a_model_that_is_not_offered_is_refused_unopened(host, gentle_weights, monkeypatch, model):
    monkeypatch.setattr(checkpoint, "read", lambda path: pytest.fail(f"opened {path}"))
    monkeypatch.setattr(host.package.choice, "choose", lambda model: pytest.fail(f"resolved {model}"))
    with pytest.raises(UsageError, match="is not offered: choose one from the node's list"):
        host.node.execute(
            torch.rand(1, 8, 8, 3), str(gentle_weights) if model == "weights" else model, 0, "fp32"
        )


@pytest.mark.parametrize(("theirs", "ours"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("mps", "cpu")])
def test_comfyuis_device_is_obeyed(host, monkeypatch, theirs, ours):
    host.device = theirs

    class Seen(Exception):
        pass

    def load(name, stages, precision, device):
        raise Seen(device)

    monkeypatch.setattr(host.package, "load", load)
    with pytest.raises(Seen, match=ours):
        host.node.execute(torch.rand(1, 8, 8, 3), MODEL, 0, "fp32")


def test_comfyui_loads_the_model_before_each_run(host):
    for _ in range(2):
        host.node.execute(torch.rand(1, 8, 8, 3), MODEL, 0, "fp32")
    models = [model for model, _ in host.loaded]
    assert len(models) == 2 and models[0] is models[1]


def test_what_a_gpu_cannot_hold_is_computed_on_the_processor(host, monkeypatch, caplog):
    host.device = "cuda"
    tried = []

    def load(name, stages, precision, device):
        tried.append(device)
        restorer = Restorer(name, "cpu", precision)
        if device == "cuda":
            restorer.device = torch.device("meta")  # any that is not the processor
            monkeypatch.setattr(restorer.model, "to", lambda device: None)
            monkeypatch.setattr(restorer, "restore_arrays", fails)
        return restorer, comfy_stub.ModelPatcher(restorer.model, restorer.device, "cpu")

    def fails(*of, **call):
        raise NotEnoughMemory(8, 9, "need 9 GB on the GPU")

    monkeypatch.setattr(host.package, "load", load)
    image = torch.rand(1, 8, 9, 3)
    (restored,) = host.node.execute(image, MODEL, 0, "fp32").result
    assert tried == ["cuda", "cpu"] and not torch.equal(restored, image)
    assert host.loaded[0][1] > 0 == host.loaded[1][1]
    assert "computing on the processor" in caplog.text


def test_strength_detail_and_masks(host, gentle_weights):
    image, mask = torch.rand(2, 20, 30, 3), torch.zeros(1, 20, 30)
    mask[..., :12] = 1
    (restored,) = host.node.execute(image, MODEL, 0, "fp32", 0.7, 0.2, mask).result
    restorer = Restorer(gentle_weights)
    expected = restorer(image[1].numpy(), strength=0.7, detail=0.2, mask=mask[0].numpy())
    np.testing.assert_array_equal(restored[1].numpy(), expected.clip(0, 1))
    assert torch.equal(restored[:, :, 12:], image[:, :, 12:])
    (unchanged,) = host.node.execute(image, MODEL, 0, "fp32", 0.0).result
    assert torch.equal(unchanged, image)
    with pytest.raises(UsageError, match="3 masks for 2 pictures"):
        host.node.execute(image, MODEL, 0, "fp32", 1.0, 0.0, torch.ones(3, 20, 30))
    with pytest.raises(UsageError, match="all black"):
        host.node.execute(image, MODEL, 0, "fp32", 1.0, 0.0, torch.zeros(1, 64, 64))


def test_a_large_picture_has_previews(host, monkeypatch):
    monkeypatch.setattr(host.package, "LARGE", 100)
    monkeypatch.setattr(host.package, "PREVIEW", 32)
    monkeypatch.setattr(memory, "is_small", lambda *of: False)
    image = torch.rand(1, 50, 80, 3)
    host.node.execute(image, MODEL, 0, "fp32")
    kinds, pictures, sizes = zip(*host.previews, strict=True)
    assert {*kinds} == {"JPEG"} and {*sizes} == {32} and {picture.size for picture in pictures} == {(32, 20)}
    first, last = np.asarray(pictures[0]), np.asarray(pictures[-1])
    assert len(pictures) > 3 and not np.array_equal(first, last)


def test_spandrel_is_taught(host):
    assert "MAXIM" in host.spandrel.MAIN_REGISTRY


def test_without_spandrel_the_node_is_there_all_the_same(host, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert host.load(host.package) == [host.node]
    assert "spandrel cannot be used" in caplog.text


def test_what_the_registry_reads():
    facts = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    assert facts["project"]["dependencies"] == ["maximir"]
    assert facts["tool"]["comfy"].keys() == {"PublisherId", "DisplayName"}
