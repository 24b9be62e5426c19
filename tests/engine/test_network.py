"""The engine computes what the network computes: in strips, by kernels, in half precision, changed or not."""

import copy
import dataclasses
import logging

import pytest
import torch
from torch import nn

from helpers.weights import randomise
from maximir import Maxim, MaximConfig, MaximirError
from maximir.engine import blocks as plans
from maximir.engine import known, merging, network
from maximir.engine.maps import MapStore
from maximir.engine.merging import Fused, Map, Upsampled
from maximir.engine.network import run
from maximir.engine.sweeps import Pass, Streaming
from maximir.network import blocks, layers
from maximir.network.model import Bottleneck, EncoderDecoderBlock, MultiScaleFusion
from maximir.ops import kernels

TOLERANCE = 1e-5
SMALL = MaximConfig(features=16, stages=2, groups=2, bottlenecks=1)
TWO_ROWS_OF_STRIPS = 20_000  # bytes


@pytest.fixture(scope="module")
def model():
    return randomise(Maxim(SMALL))


def flat(outputs):
    return [scale for stage in outputs for scale in stage]


def whole(model, image):
    with torch.no_grad():
        return flat(model(image))


def worst(ours, expected):
    return max((a - b).abs().max().item() for a, b in zip(ours, expected, strict=True))


@pytest.fixture(params=["torch", "kernels"])
def native(request):
    if request.param == "kernels" and kernels.library() is None:
        pytest.skip("no native kernels were built for this processor")
    return request.param == "kernels"


@pytest.mark.parametrize("shape", [(1, 128, 64), (2, 64, 128)])
@pytest.mark.parametrize("strip_bytes", [1, TWO_ROWS_OF_STRIPS, 1 << 30])
def test_engine_equals_network(model, shape, strip_bytes, native):
    n, h, w = shape
    image, strips = torch.rand(n, 3, h, w), []
    streaming = Streaming(strip_bytes, kernels=native, strip_done=strips.append)
    assert worst(flat(run(model, image, streaming)), whole(model, image)) < TOLERANCE
    if strip_bytes == 1:
        assert max(strips) >= 8  # there were strips
    if strip_bytes == 1 << 30:
        assert max(strips) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        MaximConfig(features=8, stages=3, groups=1, bottlenecks=2, reduction=2),
        MaximConfig(features=32, stages=1, groups=2, bottlenecks=1, padding_mode="replicate"),
        MaximConfig(features=12, stages=2, groups=1, bottlenecks=1),
        MaximConfig(features=8, stages=2, groups=1, bottlenecks=1, unshuffle=2),
    ],
    ids=["three stages", "replicated borders", "odd width", "unshuffled"],
)
def test_engine_equals_network_of_any_shape(config):
    other, image = randomise(Maxim(config)), torch.rand(1, 3, 256, config.size_multiple)
    assert worst(flat(run(other, image, Streaming(TWO_ROWS_OF_STRIPS))), whole(other, image)) < TOLERANCE


def test_strips_of_replicated_borders(model, native):
    """A strip's border is the image's only at the top and at the bottom of the image."""
    other = Maxim(dataclasses.replace(SMALL, padding_mode="replicate")).eval()
    other.load_state_dict(model.state_dict())
    image = torch.rand(1, 3, 128, 64)
    expected = whole(other, image)
    ours = flat(run(other, image, Streaming(TWO_ROWS_OF_STRIPS, kernels=native)))
    assert worst(ours, expected) < TOLERANCE
    assert worst(whole(model, image), expected) > 100 * TOLERANCE


@pytest.mark.slow
def test_scratch_files_hold_the_same(model, tmp_path, native):
    image = torch.rand(1, 3, 128, 128)
    store = MapStore(memory=1_500_000, scratch=tmp_path)
    streaming = Streaming(TWO_ROWS_OF_STRIPS, store=store, kernels=native)
    assert worst(flat(run(model, image, streaming)), whole(model, image)) < TOLERANCE
    assert store.scratch_peak > 1_000_000
    assert store.memory_peak <= 1_500_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_half_precision_is_near(model, native):
    image = torch.rand(1, 3, 128, 128)
    expected = whole(model, image)[-1]
    half = run(model, image, Streaming(TWO_ROWS_OF_STRIPS, features=torch.bfloat16, kernels=native))[-1][-1]
    assert half.dtype == torch.float32
    error = (half - expected).square().mean().sqrt() / expected.std()
    assert 1e-5 < error < 0.02


@pytest.mark.slow
def test_half_precision_takes_less(model):
    image = torch.rand(1, 3, 128, 128)
    peaks = []
    for features in (torch.float32, torch.bfloat16):
        streaming = Streaming(TWO_ROWS_OF_STRIPS, features=features)
        run(model, image, streaming)
        peaks.append(streaming.store.peak)
    assert peaks[1] < 0.6 * peaks[0]


def test_maps_that_must_live_are_few(model):
    """In full-size float32 maps: what two stages need; every other map is a strip."""
    streaming = Streaming(TWO_ROWS_OF_STRIPS)
    run(model, torch.rand(1, 3, 128, 128), streaming)
    assert streaming.store.peak / (128 * 128 * SMALL.features * 4) < 8.05


def test_a_pass_on_the_meta_device_counts_what_a_real_one_takes(model):
    with torch.device("meta"):
        image, empty = torch.empty(1, 3, 128, 192), Maxim(SMALL).eval()
    dry, real = Streaming(), Streaming()
    run(empty, image, dry)
    run(model, torch.rand(1, 3, 128, 192), real)
    assert dry.store.peak == pytest.approx(real.store.peak, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_types_run_plainly(dtype):
    torch.manual_seed(0)
    other = Maxim(SMALL).eval().to(dtype)
    image = torch.rand(1, 3, 64, 64, dtype=dtype)
    assert torch.equal(run(other, image)[-1][-1], whole(other, image)[-1])


def test_an_empty_batch_gives_an_empty_batch(model):
    assert run(model, torch.rand(0, 3, 64, 64))[-1][-1].shape == (0, 3, 64, 64)


def test_a_wrong_image_is_refused_as_by_the_network(model):
    with pytest.raises(MaximirError, match="multiples of 64, not 64 x 80"):
        run(model, torch.rand(1, 3, 64, 80))


def test_nothing_of_the_caller_is_overwritten(model):
    image = torch.rand(1, 3, 64, 64)
    before = image.clone()
    first = flat(run(model, image, Streaming(1)))
    assert torch.equal(image, before)
    kept = [x.clone() for x in first]
    run(model, image.flip(3), Streaming(1))  # the first outputs' memory is not given to another map
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


# Blocks: each beside its plan. A block that changes without its plan fails here, under both names.

H, W, C = 48, 32, 32


def pass_():
    return Pass(Streaming(TWO_ROWS_OF_STRIPS), H * 4 // 8)  # H is a level-2 height: one unit is two rows


def maps(count, channels=C, height=H, width=W):
    return [torch.randn(1, height, width, channels) for _ in range(count)]


def multi_axis_gated_mlp():
    block, (x,) = blocks.MultiAxisGatedMlp(C, 16, 0.0), maps(1)
    return block, (x,), lambda run: plans.multi_axis(run, block, x)


def conv_channel_attention():
    block, (x,) = blocks.ConvChannelAttention(C, 4), maps(1)
    return block, (x,), lambda run: plans.channel_attention(run, block, x)


def dense_channel_attention():
    block, (x,) = blocks.DenseChannelAttention(C, 4), maps(1)
    return block, (x,), lambda run: plans.channel_attention(run, block, x)


def cross_gating():
    block, (x, y) = blocks.CrossGating(C, C, 16, 0.0), maps(2)
    return block, (x, y), lambda run: plans.cross_gating(run, block, Map(x), y, x.numel())


def cross_gating_from_below():
    block, (x,), (y,) = blocks.CrossGating(C, C, 16, 0.0, 16), maps(1), maps(1, 16, H // 2, W // 2)
    return block, (x, y), lambda run: plans.cross_gating(run, block, Map(x), y, x.numel())


def supervised_attention():
    block, (x,), (image,) = blocks.SupervisedAttention(C), maps(1), maps(1, 3)
    return block, (x, image), lambda run: plans.supervised_attention(run, block, x, image)


def bottleneck():
    block, (x,) = Bottleneck(MaximConfig(C, 1), C), maps(1)
    return block, (x,), lambda run: plans.shortcut_block(run, block, x.numel(), Map(x))


def encoder_decoder_block():
    block, (x, y) = EncoderDecoderBlock(MaximConfig(C, 1), 2 * C, C, 16), maps(2)
    joined = torch.cat([x, y], dim=-1)
    return block, (joined,), lambda run: plans.shortcut_block(run, block, x.numel(), Map(x), Map(y))


def down_convolution():
    conv, (x,) = layers.Conv(C, C, 4, stride=2), maps(1)
    return conv, (x,), lambda run: plans.convolution(run, conv, x, feature=True)


def projected(block, source):
    """A source through a projection, beside the projection of the block's result."""
    linear = randomise(nn.Linear(source.channels, C))
    both = nn.Sequential(block, linear)
    return both, lambda run: merging.project(run, linear, source, size=H * W * C)[0]


def fusion():
    fused = MultiScaleFusion(MaximConfig(C, 1), 1, (2, 0, 1))
    by_level = [*maps(1, C, 2 * H, 2 * W), *maps(1, 2 * C), *maps(1, 4 * C, H // 2, W // 2)]
    return (both := projected(fused, Fused(fused, by_level)))[0], (by_level,), both[1]


def up_convolution():
    up, (x,) = layers.ConvTranspose(C, C), maps(1, C, H // 2, W // 2)
    return (both := projected(up, Upsampled(up, x)))[0], (x,), both[1]


PLANS = [
    multi_axis_gated_mlp,
    conv_channel_attention,
    dense_channel_attention,
    cross_gating,
    cross_gating_from_below,
    supervised_attention,
    bottleneck,
    encoder_decoder_block,
    down_convolution,
    fusion,
    up_convolution,
]


@pytest.mark.parametrize("case", PLANS, ids=lambda case: case.__name__)
@torch.no_grad()
def test_the_plan_computes_what_the_block_computes(case, native):
    torch.manual_seed(0)
    block, inputs, plan = case()
    randomise(block)
    with kernels.allow(False):
        expected = block(*inputs)
    kept = copy.deepcopy(inputs)
    with kernels.allow(native):
        ours = plan(Pass(dataclasses.replace(pass_().streaming, kernels=native), pass_().units))
    for a, b in zip(*([x] if torch.is_tensor(x) else x for x in (ours, expected)), strict=True):
        difference = (a - b).abs().max().item() / b.abs().max().item()
        name = f"engine plan {case.__name__} and the network's {type(block).__name__} differ: change both"
        assert difference < TOLERANCE, f"{name} ({difference:.1e})"
    torch.testing.assert_close(inputs, kept, rtol=0, atol=0)


def test_every_block_has_a_plan_that_is_tested():
    """Or is part of one that has: a new class in `network.blocks` needs a case above."""
    covered = {type(module) for case in PLANS for module in case()[0].modules()}
    classes = {kind for kind in known.FORWARDS if kind.__module__ == blocks.__name__}
    assert classes - covered == {blocks.ResidualChannelAttention}  # the base of two


# The engine calls a module without a plan as it is.


@pytest.fixture
def plain_calls(monkeypatch, caplog):
    known.say_plain.cache_clear()
    with caplog.at_level(logging.WARNING):
        yield lambda: [record.args[0] for record in caplog.records]
    known.say_plain.cache_clear()


class Doubled(blocks.MultiAxisGatedMlp):
    def forward(self, x):
        return 2 * super().forward(x)


class OtherStage(network.Stage):
    pass


class OtherMaxim(Maxim):
    def forward(self, image):
        return [[1 - scale for scale in stage] for stage in super().forward(image)]


def change_class(path, kind):
    def change(model):
        model.get_submodule(path).__class__ = kind

    return change


def add_one(module, inputs, output):
    return tuple(x + 1 for x in output) if isinstance(output, tuple) else output + 1


def hook(path):
    def change(model):
        model.get_submodule(path).register_forward_hook(add_one)

    return change


def new_forward(model):
    block = model.stages[1].encoders[0].block
    block.forward = lambda x: block.project(x)


CHANGES = {
    "subclass of a block": (change_class("stages.0.encoders.1.block.groups.0.0", Doubled), "Doubled"),
    "hook on a layer": (hook("stages.1.decoders.0.block.groups.0.1.conv1"), "Conv"),
    "hook on an input convolution": (hook("stages.0.input_convs.0"), "ImageConv"),
    "hook on a fusion's projection": (hook("stages.0.encoder_fusions.2.scales.0.project"), "Conv1x1"),
    "hook on a gate": (hook("stages.0.skip_gates.1"), "CrossGating"),
    "hook on a group": (hook("stages.0.bottlenecks.0.groups.0"), "Group"),
    "hook on an up-convolution": (hook("stages.0.decoders.2.up"), "ConvTranspose"),
    "hook on a decoder": (hook("stages.0.decoders.1"), "Decoder"),
    "hook on an image's convolution": (hook("stages.1.outputs.0"), "ImageConv"),
    "forward of its own": (new_forward, "EncoderDecoderBlock"),
    "subclass of a stage": (change_class("stages.1", OtherStage), "OtherStage"),
    "subclass of the network": (change_class("", OtherMaxim), "OtherMaxim"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_block_is_called_as_it_is(model, how, plain_calls):
    change, name = CHANGES[how]
    changed, image = copy.deepcopy(model), torch.rand(1, 3, 64, 64)
    change(changed)
    ours, expected = flat(run(changed, image)), whole(changed, image)
    assert worst(ours, expected) < TOLERANCE * max(1, max(x.abs().max().item() for x in expected))
    assert worst(expected, whole(model, image)) > 100 * TOLERANCE or how == "subclass of a stage"
    assert plain_calls() == [name]  # and it is said once
    run(changed, image)
    assert plain_calls() == [name]


def test_nothing_is_said_of_the_network_as_it_is(model, plain_calls):
    run(model, torch.rand(1, 3, 64, 64))
    assert plain_calls() == []


def test_dropout_in_training_is_not_skipped(plain_calls):
    torch.manual_seed(0)
    model = randomise(Maxim(MaximConfig(features=8, stages=1, groups=1, bottlenecks=1, dropout=0.5)))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(run(model, image)[-1][-1], run(model, image)[-1][-1])
    model.train()
    assert not torch.equal(run(model, image)[-1][-1], run(model, image)[-1][-1])
    assert plain_calls() != []
