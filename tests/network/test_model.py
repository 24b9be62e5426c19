import dataclasses

import pytest
import torch

from maximir import Maxim, MaximConfig, MaximirError, UsageError, load_model
from maximir.network import blocks, layers, model


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("size", [(64, 64), (64, 192)])
def test_outputs_by_stage_and_scale(stages, size):
    h, w = size
    model = Maxim(MaximConfig(features=8, stages=stages, groups=1, bottlenecks=1)).eval()
    outputs = model(torch.rand(2, 3, h, w))
    shapes = [[tuple(scale.shape) for scale in stage] for stage in outputs]
    assert shapes == [[(2, 3, h // 4, w // 4), (2, 3, h // 2, w // 2), (2, 3, h, w)]] * stages


def test_unshuffled_network_takes_multiples_of_128():
    model = Maxim(MaximConfig(features=8, stages=1, groups=1, bottlenecks=1, unshuffle=2)).eval()
    with pytest.raises(MaximirError, match="multiples of 128, not 64 x 128"):
        model(torch.rand(1, 3, 64, 128))


def test_unshuffled_pixels_come_back_where_they_were():
    model = Maxim(MaximConfig(features=8, stages=2, groups=1, bottlenecks=1, unshuffle=2)).eval()
    model.zero_outputs_()
    image = torch.rand(2, 3, 128, 256)
    with torch.no_grad():
        for stage in model(image):
            for level, restored in enumerate(reversed(stage)):
                torch.testing.assert_close(restored, layers.subsample(image, 2**level), rtol=0, atol=0)


def test_unshuffled_network_sees_each_of_the_four_pixels():
    config = MaximConfig(features=8, stages=1, groups=1, bottlenecks=1, unshuffle=2)
    assert (config.image_channels, config.windows) == (12, (8, 8, 8))
    model = Maxim(config).eval()
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        before = model(image)[-1][-1]
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            changed = image.clone()
            changed[:, :, 64 + y, 64 + x] += 0.5
            difference = model(changed)[-1][-1] - before
            assert (difference[..., 64:66, 64:66].abs().amax(dim=1) > 1e-4).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_first_stages_make_what_the_whole_network_makes_there(count):
    model = Maxim(MaximConfig(features=8, stages=3, groups=1, bottlenecks=1)).eval()
    image = torch.rand(1, 3, 64, 128)
    shorter = model.first_stages(count)
    with torch.no_grad():
        outputs, expected = shorter(image), model(image)
    assert len(outputs) == shorter.config.stages == count
    for stage, stage_expected in zip(outputs, expected, strict=False):
        for scale, scale_expected in zip(stage, stage_expected, strict=True):
            torch.testing.assert_close(scale, scale_expected, rtol=0, atol=1e-6)
    assert next(shorter.parameters()).data_ptr() == next(model.parameters()).data_ptr(), "weights are copied"


@pytest.mark.parametrize("count", [0, -1, 2])
def test_stages_that_are_not_there(tiny_model, count):
    with pytest.raises(UsageError, match=f"stages must be 1 for this model, not {count}"):
        tiny_model.first_stages(count)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (torch.zeros(3, 64, 64), r"\[N, 3, H, W\]"),
        (torch.zeros(1, 1, 64, 64), r"\[N, 3, H, W\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "floating-point"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.float64), r"float32 weights, but the image is torch\.float64"),
        (torch.zeros(1, 3, 64, 80), "multiples of 64"),
        (torch.zeros(1, 3, 0, 64), "multiples of 64"),
    ],
)
def test_wrong_input(tiny_model, image, reason):
    with pytest.raises(MaximirError, match=reason):
        tiny_model(image)


@pytest.mark.parametrize(
    "fields",
    [
        {"features": 0},
        {"stages": 1.5},
        {"features": 6},
        {"dropout": 1.0},
        {"groups": True},
        {"dropout": "x"},
        {"stages": 2**40},
        {"padding_mode": "reflect"},
    ],
)
def test_wrong_config(fields):
    with pytest.raises(MaximirError, match="config: "):
        MaximConfig(**fields)


def test_config_round_trip():
    config = MaximConfig(features=16, dropout=0.1)
    assert MaximConfig.from_dict(config.to_dict()) == config
    with pytest.raises(MaximirError, match="'widht'"):
        MaximConfig.from_dict({"widht": 3})


@pytest.mark.parametrize("size", [(64, 64), (192, 128)])
def test_replicated_borders_leave_a_flat_field_flat(size, gentle_weights):
    """Where mixing and enlarging know no places, only the border makes one differ from another."""
    model = load_model(gentle_weights)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, layers.SpatialDense):
                module.weight -= module.weight.mean(dim=1, keepdim=True)
                module.bias.fill_(module.bias.mean())
            if isinstance(module, layers.ConvTranspose):
                module.weight.copy_(module.weight.mean(dim=(2, 3), keepdim=True).expand_as(module.weight))
    spread = {}
    for mode in ("zeros", "replicate"):
        other = Maxim(dataclasses.replace(model.config, padding_mode=mode)).eval()
        other.load_state_dict(model.state_dict())
        with torch.inference_mode():
            result = other(torch.full((1, 3, *size), 0.6))[-1][-1]
        spread[mode] = (result.amax(dim=(2, 3)) - result.amin(dim=(2, 3))).max().item()
    assert spread["replicate"] < 1e-5 < 1e-3 < spread["zeros"]


def test_every_parameter_matters():
    """Nothing is wired past: every parameter gets a gradient from the outputs."""
    torch.manual_seed(0)
    model = Maxim(MaximConfig(features=8, stages=2, groups=1, bottlenecks=1))
    for module in model.modules():
        if isinstance(module, blocks.ChannelAttention):
            torch.nn.init.ones_(module.squeeze.bias)  # no ReLU starts dead
    outputs = model(torch.rand(1, 3, 64, 64))
    sum(scale.square().sum() for stage in outputs for scale in stage).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead, dead


def test_initialisation_is_the_papers():
    torch.manual_seed(0)
    model = Maxim(MaximConfig(features=32, stages=1, groups=1, bottlenecks=1))
    stage = model.stages[0]
    gmlp = stage.encoders[0].block.groups[0][0].grid
    gate = stage.skip_gates[0].gate_x
    assert gmlp.mix.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert gmlp.mix.bias.abs().max() == 0
    assert gate.grid.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert (gate.grid.bias == 1).all()
    assert (gate.block.bias == 1).all()
    assert gate.project_in.weight.std().item() == pytest.approx(32**-0.5, rel=0.05)
    conv = stage.encoders[2].block.groups[0][1].conv1
    assert conv.weight.std().item() == pytest.approx((9 * 128) ** -0.5, rel=0.02)
    assert conv.weight.abs().max() < 2.28 * (9 * 128) ** -0.5  # truncated at 2 / 0.8796 standard deviations


def test_dropout_is_in_training_only():
    torch.manual_seed(0)
    model = Maxim(MaximConfig(features=8, stages=1, groups=1, bottlenecks=1, dropout=0.5))
    image = torch.rand(1, 3, 64, 64)
    assert not torch.equal(model(image)[-1][-1], model(image)[-1][-1])
    model.eval()
    assert torch.equal(model(image)[-1][-1], model(image)[-1][-1])


def test_zeroed_outputs_make_the_identity():
    model = Maxim(MaximConfig(features=8, stages=2, groups=1, bottlenecks=1))
    model.zero_outputs_()
    image = torch.rand(1, 3, 64, 64)
    for stage in model(image):
        assert torch.equal(stage[-1], image)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(8, 8), (16, 32)])
def test_shrinking_is_antialiased_bilinear(factor, size):
    x = torch.rand(2, *size, 5, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(
        x.permute(0, 3, 1, 2), scale_factor=1 / factor, mode="bilinear", antialias=True
    )
    torch.testing.assert_close(layers.ops.shrink(x, factor), expected.permute(0, 2, 3, 1))


def test_bfloat16_autocast_is_close(tiny_model):
    image = torch.rand(1, 3, 64, 64)
    exact = tiny_model(image)[-1][-1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = tiny_model(image)[-1][-1]
    assert exact.dtype == torch.float32
    assert (rough.float() - exact).square().mean().sqrt() < 0.1 * exact.std()


@pytest.mark.parametrize("ratio", [0.25, 0.5, 2.0, 4.0])
def test_resize_and_projection_commute(ratio):
    """`ScaleTo` projects at the smaller size; the official code resizes first."""
    torch.manual_seed(0)
    scale, x = layers.ScaleTo(5, 7, ratio).double(), torch.rand(1, 16, 32, 5).double()
    torch.testing.assert_close(scale(x), scale.project(scale.resize(x)))


def test_each_block_can_be_called_alone():
    x, image = torch.rand(2, 32, 48, 8), torch.rand(2, 32, 48, 3)
    assert blocks.MultiAxisGatedMlp(8, 16, 0.0)(x).shape == x.shape
    assert blocks.ConvChannelAttention(8, 4)(x).shape == x.shape
    assert blocks.DenseChannelAttention(8, 4)(x).shape == x.shape
    both = blocks.CrossGating(8, 8, 16, 0.0, upsample_from=6)(x, torch.rand(2, 16, 24, 6))
    assert [each.shape for each in both] == [x.shape, x.shape]
    attended, restored = blocks.SupervisedAttention(8)(x, image)
    assert attended.shape == x.shape and restored.shape == image.shape
    down = model.Encoder(MaximConfig(8, 1, 1, 1), 0, first_stage=True)(x, x, None)
    assert [each.shape for each in down] == [x.shape, (2, 16, 24, 8)]


def test_hooks_see_every_block_and_can_change_it(tiny_model):
    seen = []
    block = tiny_model.stages[0].encoders[0].block
    image = torch.rand(1, 3, 64, 64)
    before = tiny_model(image)[-1][-1]
    with block.register_forward_hook(lambda module, inputs, output: seen.append(output.shape) or 0 * output):
        assert not torch.equal(tiny_model(image)[-1][-1], before)
    assert seen == [(1, 64, 64, 8)]


@pytest.mark.slow
def test_torch_func_goes_through_it(tiny_model):
    """Per-sample gradients by `vmap` of `grad`: those of one sample after the other."""
    images = torch.rand(2, 1, 3, 64, 64)
    parameters = {name: p.detach() for name, p in tiny_model.named_parameters()}

    def loss(parameters, image):
        return torch.func.functional_call(tiny_model, parameters, image)[-1][-1].square().mean()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images)
    for number, image in enumerate(images):
        alone = torch.func.grad(loss)(parameters, image)
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name][number], gradient, rtol=1e-3, atol=1e-6)


def test_recomputation_gives_the_same_gradients():
    torch.manual_seed(0)
    model = Maxim(MaximConfig(features=8, stages=2, groups=1, bottlenecks=1))
    image, gradients = torch.rand(1, 3, 64, 64), []
    for on in (False, True):
        model.recompute(on)
        model.zero_grad()
        sum(scale.square().sum() for stage in model(image) for scale in stage).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler
def test_torch_compile_takes_it_as_one_graph():
    torch.manual_seed(0)
    network = Maxim(MaximConfig(features=8, stages=1, groups=1, bottlenecks=1)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")(image)[-1][-1]
        torch.testing.assert_close(compiled, network(image)[-1][-1], rtol=0, atol=1e-5)
