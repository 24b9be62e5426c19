"""Each native library that this processor can run does what torch does, and callers manage without."""

import contextlib
import functools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import build_kernels
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.weights import randomise
from maximir import Maxim, MaximConfig, load_model
from maximir.engine import native, network
from maximir.engine.blocks import channel_attention, cross_gating, multi_axis, supervised_attention
from maximir.engine.merging import Convolved, Fused, Map, Upsampled, project
from maximir.engine.sweeps import Pass, Streaming
from maximir.network.blocks import (
    ConvChannelAttention,
    CrossGating,
    MultiAxisGatedMlp,
    SupervisedAttention,
)
from maximir.network.layers import Conv, ConvTranspose, ImageConv, LayerNorm
from maximir.network.model import MultiScaleFusion
from maximir.ops import functional as ops
from maximir.ops import kernels

NEEDS_KERNELS = pytest.mark.skipif(kernels.library() is None, reason="no native kernels for this processor")
TO_BUILD = pytest.param(kernels.PORTABLE, marks=pytest.mark.slow)
EXAMPLES = Path(__file__).parents[2] / "examples"
CASES = [(32, 16, (1, 32, 48)), (64, 16, (2, 16, 32)), (128, 8, (1, 24, 8)), (96, 8, (1, 16, 16))]


@functools.cache
def build_portable():
    """Build AMX's tiles in plain C++, with the vectors of this processor's best library."""
    compiler, library = build_kernels.find_compiler(), kernels.library()
    if compiler and library is not None:
        build_kernels.build_portable(compiler, Path(library._name).stem.removeprefix("kernels-"))


@contextlib.contextmanager
def chosen(name):
    """Use this library; skip the test where there is none."""
    if name == kernels.PORTABLE:
        build_portable()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernels.SWITCH, name)
        kernels.library.cache_clear()
        try:
            if kernels.library() is None:
                pytest.skip(f"{name}: not built, or not for this processor")
            yield
        finally:
            kernels.library.cache_clear()


@pytest.fixture(params=[*kernels.LIBRARIES, TO_BUILD])
def library(request):
    with chosen(request.param):
        yield request.param


@pytest.fixture(params=["float32", "bfloat16"])
def half(request):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=request.param == "bfloat16"):
        yield request.param == "bfloat16"


def pass_(half=False, units=8):
    return Pass(Streaming(1 << 14, features=torch.bfloat16 if half else torch.float32), units)


def close(ours, exact, tolerance):
    assert (ours.double() - exact).abs().max() < tolerance * exact.abs().max()


@torch.autocast("cpu", enabled=False)
def exactly(block, *inputs):
    """The block's results in double precision, which no kernel has."""
    results = block.double()(*(x.double() for x in inputs))
    block.float()
    return results


@pytest.mark.parametrize(("channels", "size", "shape"), CASES)
def test_multi_axis_block(library, half, channels, size, shape):
    block = randomise(MultiAxisGatedMlp(channels, size, 0.0))
    x = torch.randn(*shape, channels)
    exact, kept, run = exactly(block, x), x.clone(), pass_(half)
    assert native.fits(run, block, x, dtype=torch.float32)
    close(multi_axis(run, block, x), exact, 3e-2 if half else 2e-6)
    assert torch.equal(x, kept)
    close(multi_axis(run, block, x, into=x), exact, 3e-2 if half else 2e-6)


@pytest.mark.parametrize(("channels", "size", "shape"), CASES)
def test_cross_gating(library, half, channels, size, shape):
    block = randomise(CrossGating(channels, channels, size, 0.0))
    x, y = torch.randn(2, *shape, channels)
    exact = exactly(block, x, y)
    for ours, expected in zip(cross_gating(pass_(half), block, Map(x), y, x.numel()), exact, strict=True):
        close(ours, expected, 3e-2 if half else 2e-6)


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize(("channels", "shape"), [(32, (1, 37, 48)), (64, (2, 18, 16)), (128, (1, 1, 32))])
def test_channel_attention(library, half, channels, shape, padding_mode):
    """Heights that fill no band, one row; with a long shortcut, and over x."""
    block = randomise(ConvChannelAttention(channels, 4))
    block.conv1.padding_mode = block.conv2.padding_mode = padding_mode
    x, shortcut, run = 3 * torch.randn(*shape, channels) + 1, torch.randn(*shape, channels), pass_(half)
    shortcut = shortcut.to(run.streaming.features)
    exact = exactly(block, x)
    tolerance = 2e-2 if half else 2e-6
    kept = x.clone()
    close(channel_attention(run, block, x), exact, tolerance)
    joined = channel_attention(run, block, x, shortcut=shortcut)
    assert joined.dtype == shortcut.dtype and torch.equal(x, kept)
    close(joined, exact + shortcut, tolerance)
    assert channel_attention(run, block, x, into=x).data_ptr() == x.data_ptr()
    close(x, exact, tolerance)


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize(("channels", "pixel", "shape"), [(32, 3, (1, 40, 48)), (64, 12, (2, 16, 16))])
def test_supervised_attention(library, half, channels, pixel, shape, padding_mode):
    module = randomise(SupervisedAttention(channels, pixel))
    for layer in module.children():
        layer.padding_mode = padding_mode
    run = pass_(half)
    x, image = torch.randn(*shape, channels).to(run.streaming.features), torch.rand(*shape, pixel)
    with torch.autocast("cpu", enabled=False):
        exact = module.double()(x.double(), image.double())
        module.float()
    for ours, expected in zip(supervised_attention(run, module, x, image), exact, strict=True):
        close(ours, expected, 1e-2 if half else 2e-6)


@pytest.mark.parametrize(("images", "strip_bytes"), [(1, 1), (2, 1 << 14), (1, 1 << 30)])
def test_projections(library, half, images, strip_bytes):
    """A fusion of three sizes beside a map from below, and a convolved image: rows of every strip."""
    config, (h, w) = MaximConfig(32, 1), (16, 32)
    fused, up = randomise(MultiScaleFusion(config, 1, (2, 0, 1))), randomise(ConvTranspose(128, 64))
    conv, linear = randomise(ImageConv(3, 64)), randomise(nn.Linear(3 * 64 + 2 * 64, 64))
    run = Pass(Streaming(strip_bytes, features=torch.bfloat16 if half else torch.float32), 4)
    sizes = [(2 * h, 2 * w, 32), (h, w, 64), (h // 2, w // 2, 128)]
    by_level = [torch.randn(images, *size).to(run.streaming.features) for size in sizes]
    image = torch.rand(images, h, w, 3)
    with torch.autocast("cpu", enabled=False):
        for layer in (fused, up, conv, linear):
            layer.double()
        double = [x.double() for x in by_level]
        exact = linear(torch.cat([fused(double), up(double[2]), conv(image.double())], dim=-1))
        for layer in (fused, up, conv, linear):
            layer.float()
    sources = Fused(fused, by_level), Upsampled(up, by_level[2]), Convolved(conv, image)
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "project", lambda *args, f=native.project: (called.append(1), f(*args))[1])
        for feature in (False, True):
            result, kept = project(run, linear, *sources, size=exact.numel(), feature=feature, keep=True)
            assert called and result.dtype == run.dtype(feature) and kept.dtype == run.dtype(True)
            assert torch.equal(kept, result.to(kept.dtype))
            close(result, exact, 1e-2 if half else 2e-6)


def tile_products(name):
    """Products of tiles of all kinds: usual numbers, the smallest and the largest, infinities and NaN."""
    random = np.random.default_rng(0)
    results = []
    for low, high in 200 * [(120, 131), (0, 255), (55, 71), (185, 196), (0, 256)]:
        signs, exponents = random.integers(0, 2, (2, 512)), random.integers(low, high, (2, 512))
        bits = (signs << 15 | exponents << 7 | random.integers(0, 128, (2, 512))).astype(np.uint16)
        bits[0, random.random(512) < random.choice([0, 0.9])] = 0  # sums of few terms, where roundings show
        sums = (random.integers(0, high << 23, 256) | random.integers(0, 2, 256) << 31).astype(np.uint32)
        left, right, total = (torch.from_numpy(x) for x in (*bits, sums.view(np.float32)))
        before = total.clone()
        kernels.call("tile_product", *kernels.pointers(left, right, total))
        results.append((left.view(torch.bfloat16), right.view(torch.bfloat16), before, total))
    return results


@pytest.mark.slow
def test_portable_tiles_are_products():
    with chosen(kernels.PORTABLE):
        for left, right, before, total in tile_products(kernels.PORTABLE)[::5]:
            right = right.view(16, 16, 2).transpose(1, 2).reshape(32, 16)
            exact = before.double().view(16, 16) + left.view(16, 32).double() @ right.double()
            size = (
                before.double().abs().view(16, 16) + left.view(16, 32).double().abs() @ right.double().abs()
            )
            assert ((total.view(16, 16) - exact).abs() <= 1e-6 * size + 1e-37).all()  # subnormals are 0


@pytest.mark.slow
def test_tiles_are_the_portable_ones_bit_by_bit():
    """The only test of what AMX computes: all others compare with a tolerance."""
    model, image = randomise(Maxim(MaximConfig(32, 2, 1, 1))).eval(), torch.rand(1, 3, 128, 64)
    results = []
    for name in ("amx", kernels.PORTABLE):
        with chosen(name):
            tiles = torch.stack([total for *_, total in tile_products(name)])
            pictures = network.run(model, image, Streaming(1 << 18, features=torch.bfloat16))
            results.append([tiles, *(scale for stage in pictures for scale in stage)])
    for ours, portable in zip(*results, strict=True):
        same = (ours == portable) & (ours.signbit() == portable.signbit()) | ours.isnan() & portable.isnan()
        assert same.all()


@pytest.mark.parametrize("name", ["amx", TO_BUILD])
def test_tiles_restore_a_photograph_as_fp32_does(name):
    model = load_model("denoise").eval()
    photograph = Image.open(EXAMPLES / "coffee.png").convert("RGB").crop((200, 100, 328, 228))
    image = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None] / 255
    exact = network.run(model, image)[-1][-1]
    with chosen(name):
        half = network.run(model, image, Streaming(features=torch.bfloat16))[-1][-1]
    assert 60 < -10 * (half - exact).square().mean().log10() < 100


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize(("top", "bottom"), [(True, True), (True, False), (False, False), (False, True)])
@pytest.mark.parametrize(
    ("shape", "inputs", "outputs"), [((1, 8, 58), 32, 64), ((2, 5, 16), 16, 32), ((2, 4, 24), 3, 64)]
)
def test_convolution(library, shape, inputs, outputs, top, bottom, padding_mode):
    """Odd and even heights, widths that fill no tile, ends that are padded or not."""
    conv = randomise(Conv(inputs, outputs, 3))
    conv.padding_mode = padding_mode
    x, ends = torch.randn(*shape, inputs), {"top": top, "bottom": bottom}
    exact = ops.convolve(conv.double(), x.double(), **ends)
    conv.float()
    with torch.inference_mode():
        assert ops.fits_kernel(conv, x, top and bottom)
        ours = ops.convolve(conv, x, **ends)
        assert ours.shape == exact.shape
        close(ours, exact, 2e-6)
        leaky = torch.nn.functional.leaky_relu(ours, 0.2)
        torch.testing.assert_close(ops.convolve(conv, x, negative_slope=0.2, **ends), leaky)
        map_ = torch.full((2, *ours.shape), 7.0)  # it writes to the first of two
        assert ops.convolve(conv, x, out=map_[0], **ends).data_ptr() == map_.data_ptr()
        assert torch.equal(map_[0], ours) and (map_[1] == 7).all()


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize(
    ("shape", "inputs", "outputs"), [((1, 8, 58), 32, 64), ((2, 5, 16), 16, 32), ((1, 6, 16), 3, 32)]
)
def test_gradients_of_a_convolution(library, shape, inputs, outputs, padding_mode):
    torch.manual_seed(0)
    conv = Conv(inputs, outputs, 3)
    conv.padding_mode = padding_mode
    x = torch.randn(*shape, inputs, requires_grad=True)
    along = torch.randn(*shape, outputs)

    def gradients(dtype):
        conv.to(dtype).zero_grad()
        y = conv(x.to(dtype))
        found = torch.autograd.grad(y, [x, conv.weight, conv.bias], along.to(dtype))
        return y, [each.double() for each in found]

    _, exact = gradients(torch.float64)
    y, ours = gradients(torch.float32)
    assert type(y.grad_fn).__name__ == "ConvolutionBackward"
    for a, b in zip(ours, exact, strict=True):
        close(a, b, 2e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1, 16), (1, 3, 5, 48), (2, 20, 20, 128)])
def test_layer_norm(library, shape):
    torch.manual_seed(0)
    norm = randomise(LayerNorm(shape[-1]))
    x = 3 * torch.randn(shape) + 1
    exact = norm.double()(x.double())  # in torch: there are no kernels for it
    norm.float()
    with torch.inference_mode():
        close(norm(x), exact, 2e-6)
        assert not torch.equal(norm(x), torch.nn.LayerNorm.forward(norm, x)) or x.numel() < 1000


@pytest.mark.parametrize("count", [1, 7, 16, 1000, 40_000])
def test_gelu_and_its_gradient(library, count):
    torch.manual_seed(0)
    x = (4 * torch.randn(count)).requires_grad_()
    y = ops.gelu(x)
    assert type(y.grad_fn).__name__ == "GeluBackward"
    exact = torch.nn.functional.gelu(x.double(), approximate="tanh")
    assert (y - exact).abs().max() < 1e-6
    along = torch.randn(count)
    (ours,) = torch.autograd.grad(y, x, along)
    (theirs,) = torch.autograd.grad(exact, x, along.double())
    assert (ours - theirs).abs().max() < 2e-6


@NEEDS_KERNELS
def test_gelu_far_out():
    x = torch.tensor([-torch.inf, -1e30, -1e4, -20, 20, 1e4, 1e30, torch.nan], requires_grad=True)
    y = ops.gelu(x)
    torch.testing.assert_close(y[2:].detach(), torch.tensor([0, 0, 20, 1e4, 1e30, torch.nan]), equal_nan=True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient[1:-1], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    assert gradient[-1].isnan()


@NEEDS_KERNELS
def test_gradients_of_gradients():
    torch.manual_seed(0)
    conv = Conv(32, 32, 3)

    def penalty(dtype):
        conv.to(dtype).zero_grad()
        x = torch.linspace(-1, 1, 4 * 6 * 32, dtype=dtype).view(1, 4, 6, 32).requires_grad_()
        (slope,) = torch.autograd.grad(ops.gelu(conv(x)).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), conv.weight)[0].double()

    close(penalty(torch.float32), penalty(torch.float64), 1e-5)


@NEEDS_KERNELS
def test_convolutions_that_are_not_for_them():
    x = torch.zeros(1, 8, 16, 32)

    def fits(conv, x=x):
        with torch.inference_mode():
            return ops.fits_kernel(conv, x, whole=True)

    assert fits(Conv(32, 32, 3))
    assert not fits(Conv(32, 32, 4, stride=2))
    assert not fits(ImageConv(32, 3), x)
    assert not fits(Conv(32, 32, 3), x[:, :, :15])
    assert not fits(Conv(32, 32, 3), x.transpose(1, 2).contiguous().transpose(1, 2))
    assert not fits(Conv(32, 32, 3).bfloat16(), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits(Conv(32, 32, 3))
    with kernels.allow(False):
        assert not fits(Conv(32, 32, 3))


@NEEDS_KERNELS
def test_values_far_out_stay_finite():
    block = randomise(MultiAxisGatedMlp(32, 8, 0.0))
    x = torch.randn(1, 8, 8, 32) * 1e4
    with torch.inference_mode():
        assert torch.isfinite(multi_axis(pass_(), block, x)).all()
        x[0, 0, 0, 0] = torch.nan
        assert torch.isnan(multi_axis(pass_(), block, x)).any()  # and a wrong value is not hidden


@NEEDS_KERNELS
def test_blocks_that_are_not_for_them():
    block, x = MultiAxisGatedMlp(32, 8, 0.0), torch.zeros(1, 8, 8, 32)

    def fits(x, block=block, run=None):
        return native.fits(run or pass_(), block, x, dtype=torch.float32)

    assert fits(x)
    assert not fits(torch.zeros(1, 8, 8, 8))  # channels
    assert not fits(x.double())
    assert not fits(torch.zeros(1, 8, 32, 8).transpose(2, 3))
    assert not fits(x, MultiAxisGatedMlp(32, 8, 0.0).bfloat16())
    assert not fits(x, run=Pass(Streaming(kernels=False), 8))


@NEEDS_KERNELS
@pytest.mark.parametrize("transform", ["vmap", "grad", "trace", "subclass"])
def test_tensors_of_transforms_are_torchs(transform):
    """A kernel would read the memory behind them, which is not what they stand for."""
    x, taken = torch.rand(2, 16), []

    def function(x):
        taken.append(kernels.take(x))
        return ops.gelu(x).sum()

    match transform:
        case "vmap":
            torch.func.vmap(function)(x)
        case "grad":
            torch.func.grad(function)(x)
        case "trace":
            torch.fx.experimental.proxy_tensor.make_fx(function)(x)
        case "subclass":
            function(x.as_subclass(type("Other", (torch.Tensor,), {})))
    assert taken and not any(taken)
    assert kernels.take(x)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("g++") is None,
    reason="no compiler that the kernels are known to build with",
)
def test_kernels_were_built():
    """Else a broken build would only skip the tests above."""
    assert kernels.library() is not None


@NEEDS_KERNELS
@torch.inference_mode()
def test_a_team_computes_what_one_thread_does(monkeypatch):
    x, weight, bias = torch.randn(1, 64, 64, 32), torch.randn(32, 32, 3, 3), torch.randn(32)
    block = randomise(ConvChannelAttention(32, 4))
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        convolved = kernels.convolve(x, weight, bias, True, True, False)
        results.append((kernels.gelu(x), convolved, channel_attention(pass_(), block, x)))
    assert all(torch.equal(*both) for both in zip(*results, strict=True))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted by Linux's /proc")
@NEEDS_KERNELS
def test_threads_are_torchs():
    """A second OpenMP runtime would fight torch's for the processors."""
    script = (
        "import os, torch; from pathlib import Path; from maximir.ops import kernels\n"
        "torch.set_num_threads(3); x = torch.randn(1 << 20)\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "alone = threads(); torch.nn.functional.gelu(x)\n"
        "before = threads(); kernels.gelu(x); after = threads()\n"
        "maps = [line.split()[-1] for line in Path('/proc/self/maps').read_text().splitlines()]\n"
        "runtimes = {name for name in maps if any(n in name for n in ('libgomp', 'libomp', 'libiomp'))}\n"
        "assert before >= alone + 2 and after == before, (alone, before, after)\n"
        "assert len(runtimes) == 1, runtimes"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_no_kernels_without_torchs_openmp(monkeypatch):
    monkeypatch.setattr(kernels, "OPENMP", "nothing.so")
    assert kernels.library.__wrapped__() is None


@pytest.mark.slow
def test_without_a_library_the_result_is_the_same(tmp_path):
    """As on a machine that had no compiler."""
    script = (
        "import torch; from maximir import Maxim, MaximConfig; from maximir.ops import kernels\n"
        "from maximir.engine import network\n"
        "torch.manual_seed(0); torch.set_num_threads(1); model = Maxim(MaximConfig(16, 1, 1, 1)).eval()\n"
        "torch.save(network.run(model, torch.rand(1, 3, 64, 64))[-1][-1], 'out.pt')\n"
        "print(kernels.library())"
    )
    results = []
    for switch in ("off", None):
        environment = {key: value for key, value in os.environ.items() if key != kernels.SWITCH}
        if switch:
            environment[kernels.SWITCH] = switch
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        if switch:
            assert done.stdout.strip() == "None"
        results.append(torch.load(tmp_path / "out.pt", weights_only=True))
    assert (results[0] - results[1]).abs().max() < 1e-5 * results[0].abs().max()
    assert MaximConfig(16, 1, 1, 1).features % kernels.CHANNELS == 0
