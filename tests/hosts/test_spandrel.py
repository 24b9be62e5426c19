"""Our weights through spandrel's registry. spandrel needs torchvision, so: helpers/spandrel_stub."""

import sys

import pytest
import safetensors.torch
import torch

from helpers import spandrel_stub
from maximir import VARIANTS, Maxim, MaximConfig, UsageError, load_model
from maximir.hosts import spandrel as hosts
from maximir.models.catalogue import MODELS
from maximir.models.checkpoint import save_model


@pytest.fixture
def spandrel(monkeypatch):
    module = spandrel_stub.module()
    monkeypatch.setitem(sys.modules, "spandrel", module)
    hosts.install()
    return module


def shapes(config):
    with torch.device("meta"):
        return Maxim(config).state_dict()


@pytest.mark.parametrize(
    "config",
    [
        *VARIANTS.values(),
        MaximConfig(features=8, stages=1, groups=1, bottlenecks=1),
        MaximConfig(features=24, stages=2, groups=3, bottlenecks=4, reduction=8),
        MaximConfig(features=12, stages=4, groups=1, bottlenecks=3, reduction=1),
    ],
    ids=str,
)
def test_any_config_is_deduced_from_shapes(config):
    state = shapes(config)
    assert hosts.recognises(state)
    assert hosts.config_of(state) == config


def test_the_padding_mode_is_told_by_a_tensor(tmp_path, spandrel):
    config = MaximConfig(features=8, stages=1, groups=1, bottlenecks=1, padding_mode="replicate")
    save_model(Maxim(config), tmp_path / "model.safetensors")
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert hosts.config_of(state) == config == load_model(tmp_path / "model.safetensors").config
    assert spandrel.MAIN_REGISTRY.load(state).model.config == config


def test_weights_of_8_bits(tmp_path, spandrel):
    torch.manual_seed(0)
    config = MaximConfig(features=8, stages=1, groups=1, bottlenecks=1)
    save_model(Maxim(config), tmp_path / "model.safetensors", form="int8")
    loaded = spandrel.MAIN_REGISTRY.load(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    ours = load_model(tmp_path / "model.safetensors").state_dict()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, ours[name])


def test_other_networks_are_not_ours(spandrel):
    for state in ({}, {"body.0.weight": torch.zeros(1)}, {"stages.0.weight": torch.zeros(1)}):
        assert not hosts.recognises(state)
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.MAIN_REGISTRY.load({"body.0.weight": torch.zeros(1)})


def test_the_models_in_the_box_are_recognised_by_their_tensors():
    for model in MODELS:
        state = safetensors.torch.load_file(model.path)
        assert hosts.config_of(state) == load_model(model.path).config


@pytest.mark.parametrize("size", [(64, 128), (70, 65)])
def test_a_file_restores_as_with_us(spandrel, gentle_weights, size):
    descriptor = spandrel.MAIN_REGISTRY.load(safetensors.torch.load_file(gentle_weights))
    image = torch.rand(1, 3, *size)
    restored = descriptor(image)
    h, w = size
    padded = torch.nn.functional.pad(image, (0, -w % 64, 0, -h % 64), "reflect")
    with torch.no_grad():
        expected = load_model(gentle_weights)(padded)[-1][-1].clamp(0, 1)[..., :h, :w]
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)


def test_what_is_declared(spandrel, gentle_weights):
    descriptor = spandrel.MAIN_REGISTRY.load(safetensors.torch.load_file(gentle_weights))
    assert descriptor.size_requirements == spandrel.SizeRequirements(multiple_of=64)
    assert descriptor.tiling is spandrel.ModelTiling.DISCOURAGED
    assert (descriptor.scale, descriptor.input_channels, descriptor.output_channels) == (1, 3, 3)
    assert descriptor.tags == ["8nf", "1 stages"]


def test_precisions(spandrel, gentle_weights):
    descriptor = spandrel.MAIN_REGISTRY.load(safetensors.torch.load_file(gentle_weights))
    image = torch.rand(1, 3, 64, 64)
    exact = descriptor(image)
    restored = descriptor.to(torch.bfloat16)(image.bfloat16())
    assert restored.dtype == torch.bfloat16
    assert (restored.float() - exact).abs().max() < 0.02
    with pytest.raises(spandrel.UnsupportedDtypeError):
        descriptor.to(torch.float16)


def test_configs_are_compared_by_hyperparameters(spandrel):
    """As `assert_loads_correctly` of spandrel's tests does."""
    config = MaximConfig(features=8, stages=1, groups=1, bottlenecks=1)
    model = hosts.DescribedMaxim(config)
    loaded = spandrel.MAIN_REGISTRY.load(model.state_dict()).model
    assert type(loaded) is type(model)
    assert {**loaded.hyperparameters} == {**model.hyperparameters}
    assert loaded.hyperparameters["features"] == 8


def test_installing_twice(spandrel):
    hosts.install()
    assert list(spandrel.MAIN_REGISTRY.supports) == ["MAXIM"]


def test_without_spandrel(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match=r"spandrel cannot be used .*: pip install spandrel torchvision"):
        hosts.install()
