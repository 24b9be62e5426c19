"""The ComfyUI node in a stand-in for ComfyUI (helpers/comfy_stub): it cannot be installed here."""

import asyncio
import importlib.util
import inspect
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import comfy_stub, spandrel_stub
from maximir import Restorer, UsageError
from maximir.restoring import memory

FOLDER = Path(__file__).parents[2] / "hosts/comfyui"


@pytest.fixture
def host(monkeypatch):
    host = comfy_stub.Host()
    host.spandrel = spandrel_stub.module()
    for name, module in {**host.modules, "spandrel": host.spandrel}.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("maximir_comfyui", FOLDER / "__init__.py")
    host.package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(host.package)
    extension = asyncio.run(host.package.comfy_entrypoint())
    assert isinstance(extension, comfy_stub.ComfyExtension)
    asyncio.run(extension.on_load())
    (host.node,) = asyncio.run(extension.get_node_list())
    return host


def test_the_schema_and_execute_agree(host):
    schema = host.node.define_schema()
    assert schema.node_id == "MaximRestore"
    assert [each.id for each in schema.inputs] == list(inspect.signature(host.node.execute).parameters)
    options = schema.inputs[1].options["options"]
    assert options[0] == "denoise" and len(set(options)) == len(options)
    assert len(schema.outputs) == 1


def test_a_batch_is_restored_one_by_one(host, gentle_weights, monkeypatch):
    monkeypatch.setattr(memory, "is_small", lambda *of: False)  # else there is nothing to tell in between
    image = torch.rand(2, 50, 70, 3)
    before = image.clone()
    (restored,) = host.node.execute(image, str(gentle_weights), 0, "fp32").result
    restorer = Restorer(gentle_weights)
    expected = np.stack([restorer(picture.numpy()) for picture in image]).clip(0, 1)
    assert torch.equal(restored, torch.from_numpy(expected))
    assert torch.equal(image, before), "the node's input is others' too"
    values = [value for value, _ in host.progress]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0, 2) and any(0 < value < 1 for value in values)


def test_alpha_stays(host, gentle_weights):
    image = torch.rand(1, 64, 64, 4)
    (restored,) = host.node.execute(image, str(gentle_weights), 1, "bf16").result
    assert restored.shape == image.shape
    assert torch.equal(restored[..., 3], image[..., 3])
    assert not torch.equal(restored[..., :3], image[..., :3])


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu:1"])
def test_the_host_chooses_the_device(device, host, gentle_weights, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # ComfyUI was started with --cpu
    host.device = torch.device(device)
    (restored,) = host.node.execute(torch.rand(1, 40, 40, 3), str(gentle_weights), 0, "fp32").result
    assert restored.shape == (1, 40, 40, 3)
    assert host.package.restorer_of(str(gentle_weights), 0, "fp32", "cpu").device == torch.device("cpu")


def test_a_gpu_of_the_host(host):
    host.device = torch.device("cuda", 1)
    assert host.package.device_of_host() == "cuda:1"


def test_an_interruption_ends_it_at_once_and_the_next_run_works(host, gentle_weights):
    host.interrupted = True
    with pytest.raises(comfy_stub.InterruptProcessingException):
        host.node.execute(torch.rand(3, 64, 64, 3), str(gentle_weights), 0, "fp32")
    assert not host.progress
    host.node.execute(torch.rand(1, 64, 64, 3), str(gentle_weights), 0, "fp32")
    assert host.progress[-1] == (1, 1)


def test_more_stages_than_there_are(host, gentle_weights):
    with pytest.raises(UsageError, match="stages must be 1 to 1 for this model, not 3"):
        host.node.execute(torch.rand(1, 64, 64, 3), str(gentle_weights), 3, "fp32")


def test_spandrel_is_taught(host):
    assert "MAXIM" in host.spandrel.MAIN_REGISTRY


def test_without_spandrel_the_node_is_there_all_the_same(host, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    asyncio.run(host.package.MaximExtension().on_load())
    assert "spandrel cannot be used" in caplog.text


def test_what_the_registry_reads():
    facts = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    assert facts["project"]["dependencies"] == ["maximir"]
    assert facts["tool"]["comfy"].keys() == {"PublisherId", "DisplayName"}
