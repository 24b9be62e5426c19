"""Strips change nothing: not the outputs, not the gradients, only what must be in memory at once."""

import dataclasses

import pytest
import torch

from maximir import Maxim, MaximConfig
from maximir.engine import kernels, streaming
from maximir.engine.maps import MapStore
from maximir.engine.sources import Map
from maximir.engine.streaming import Rows, Streaming, from_windows, tiles, windows
from maximir.network.blocks import CrossGating, MultiAxisGatedMlp

TOLERANCE = 1e-5
SMALL = MaximConfig(features=16, stages=2, groups=2, bottlenecks=1)


@pytest.fixture(scope="module")
def model():
    """Random weights of ordinary size: those of a new network are near zero, and would hide mistakes."""
    torch.manual_seed(0)
    model = Maxim(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def outputs(model, image, chosen, *, half=False):
    with (
        torch.inference_mode(),
        streaming.use(chosen),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        return [scale for stage in model(image) for scale in stage]


def worst(ours, expected):
    return max((a - b).abs().max().item() for a, b in zip(ours, expected, strict=True))


@pytest.fixture(params=["torch", "kernels"])
def native(request):
    if request.param == "kernels" and kernels.library() is None:
        pytest.skip("no native kernels were built for this processor")
    return request.param == "kernels"


@pytest.mark.parametrize("shape", [(1, 128, 64), (2, 64, 128)])
@pytest.mark.parametrize("strip_bytes", [1, 20_000, 1 << 30])
def test_streamed_equals_unstreamed(model, shape, strip_bytes, native):
    torch.manual_seed(1)
    n, h, w = shape
    image = torch.rand(n, 3, h, w)
    whole = outputs(model, image, Streaming(strip_bytes=None))
    strips = []
    chosen = Streaming(strip_bytes, kernels=native, strip_done=strips.append)
    assert worst(outputs(model, image, chosen), whole) < TOLERANCE
    if strip_bytes == 1:
        assert max(strips) >= 8  # there were strips
    if strip_bytes == 1 << 30:
        assert max(strips) == 1


def test_strips_of_replicated_borders(model, native):
    """A strip's border is the image's only at the top and at the bottom of the image."""
    other = Maxim(dataclasses.replace(SMALL, padding_mode="replicate")).eval()
    other.load_state_dict(model.state_dict())
    image = torch.rand(1, 3, 128, 64)
    whole = outputs(other, image, Streaming(strip_bytes=None))
    assert worst(outputs(other, image, Streaming(20_000, kernels=native)), whole) < TOLERANCE
    assert worst(outputs(model, image, Streaming(strip_bytes=None)), whole) > 100 * TOLERANCE


def test_scratch_files_hold_the_same(model, tmp_path, native):
    image = torch.rand(1, 3, 128, 128)
    whole = outputs(model, image, Streaming(strip_bytes=None))
    store = MapStore(memory=1_500_000, scratch=tmp_path)
    chosen = Streaming(20_000, store=store, kernels=native)
    assert worst(outputs(model, image, chosen), whole) < TOLERANCE
    assert store.scratch_peak > 1_000_000
    assert store.memory_peak <= 1_500_000
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_near(model, native):
    image = torch.rand(1, 3, 128, 128)
    whole = outputs(model, image, Streaming(strip_bytes=None))[-1]
    chosen = Streaming(20_000, features=torch.bfloat16, kernels=native)
    half = outputs(model, image, chosen, half=True)[-1]
    assert half.dtype == torch.float32
    error = (half - whole).square().mean().sqrt() / whole.std()
    assert 1e-5 < error < 0.02


def test_half_precision_takes_less(model):
    image = torch.rand(1, 3, 128, 128)
    peaks = []
    for features in (torch.float32, torch.bfloat16):
        chosen = Streaming(20_000, features=features)
        outputs(model, image, chosen, half=features == torch.bfloat16)
        peaks.append(chosen.store.peak)
    assert peaks[1] < 0.6 * peaks[0]


def test_maps_that_must_live_are_few(model):
    """In full-size float32 maps: design.md counts what two stages need; every other map is a strip."""
    image = torch.rand(1, 3, 128, 128)
    chosen = Streaming(20_000)
    outputs(model, image, chosen)
    assert chosen.store.peak / (128 * 128 * SMALL.features * 4) < 8.05


def test_a_dry_pass_counts_what_a_real_one_takes(model):
    with torch.device("meta"):
        image = torch.empty(1, 3, 128, 192)
    dry, real = Streaming(20_000, dry=True), Streaming(20_000)
    outputs(Maxim(SMALL).to("meta").eval(), image, dry)
    outputs(model, torch.rand(1, 3, 128, 192), real)
    assert dry.store.peak == pytest.approx(real.store.peak, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_one_strip(dtype):
    torch.manual_seed(0)
    model = Maxim(SMALL).eval().to(dtype)
    image = torch.rand(1, 3, 64, 64, dtype=dtype)
    recorded = model(image)[-1][-1]
    assert recorded.dtype == dtype
    with torch.no_grad():
        assert torch.equal(model(image)[-1][-1], recorded)


def test_nothing_gives_nothing(model):
    assert outputs(model, torch.rand(0, 3, 64, 64), Streaming(1))[-1].shape == (0, 3, 64, 64)


def test_gradients_are_those_of_the_whole_image(model):
    """While gradients are recorded there is one strip, whatever is chosen: nothing is overwritten."""
    image = torch.rand(1, 3, 64, 64)
    gradients = []
    for chosen in (Streaming(strip_bytes=None), Streaming(1)):
        model.zero_grad()
        with streaming.use(chosen):
            sum(scale.square().sum() for stage in model(image) for scale in stage).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    model.zero_grad(set_to_none=True)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_image_is_not_overwritten(model):
    image = torch.rand(1, 3, 64, 64)
    before = image.clone()
    first = outputs(model, image, Streaming(1))
    assert torch.equal(image, before)
    kept = [x.clone() for x in first]
    outputs(model, image.flip(3), Streaming(1))  # the first outputs' memory is not given to another map
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


@pytest.mark.parametrize("block", [MultiAxisGatedMlp(16, 8, 0.0), CrossGating(16, 16, 8, 0.0)])
def test_layers_alone_are_whole_and_keep_their_inputs(block):
    x, y = torch.rand(2, 1, 16, 16, 16)
    kept = x.clone(), y.clone()
    inputs = (x,) if isinstance(block, MultiAxisGatedMlp) else (Map(x), Map(y), x.numel())
    with torch.no_grad(), streaming.use(Streaming(1)):
        block(*inputs)
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1])


@pytest.mark.parametrize("axis", ["block", "grid"])
def test_windows_round_trip(axis):
    x = torch.rand(2, 64, 128, 3)
    assert torch.equal(from_windows(windows(x, 16, axis).reshape(256, -1, 3), x.shape, 16, axis), x)


def test_blocks_are_local_and_grids_are_strided():
    image = torch.arange(64 * 64).reshape(1, 64, 64, 1)
    block = windows(image, 16, "block").reshape(256, -1)
    grid = windows(image, 16, "grid").reshape(256, -1)
    rows, columns = torch.arange(16)[:, None], torch.arange(16)
    assert torch.equal(block[:, 0], (64 * rows + columns).flatten())
    assert torch.equal(grid[:, 0], (64 * 4 * rows + 4 * columns).flatten())


@pytest.mark.parametrize("count", [0, 1, 3, 7, 20, 1000])
def test_tiles_cover_every_window_once(count):
    covered = torch.zeros(2, 5, 7, dtype=torch.int)
    for tile in tiles((2, 5, 7), count):
        covered[tile] += 1
        assert covered[tile].numel() <= max(1, count)
    assert (covered == 1).all()


def test_rows_of_maps_at_every_scale():
    x = torch.arange(32).reshape(1, 32, 1, 1)
    top, middle, bottom = Rows(0, 2, 8), Rows(2, 4, 8), Rows(6, 8, 8)
    assert middle.of(x, 2).flatten().tolist() == list(range(6, 18))
    assert top.of(x, 2).flatten().tolist() == list(range(10))
    assert bottom.of(x, 2).flatten().tolist() == list(range(22, 32))
    for rows in (top, middle, bottom):
        assert torch.equal(rows.trim(rows.of(x, 2), 2), rows.of(x))


@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
def test_a_strip_is_written_where_it_belongs(features):
    """By the function's last operation, or copied if that did not; and over one of its maps, if it may."""
    torch.manual_seed(0)
    x, y, places = torch.rand(1, 16, 4, 8), torch.rand(1, 16, 4, 8), []

    def add(rows):
        part = rows.of(x)
        places.append(rows.out(part.shape, part.device))
        return torch.add(part, rows.of(y), out=places[-1])

    def plain(rows):
        return rows.of(x) + rows.of(y)

    with torch.inference_mode(), streaming.use(Streaming(1, features=features)), streaming.image(32):
        total, copied = (streaming.sweep_rows(each, x.numel(), feature=True) for each in (add, plain))
        over = y.clone()
        y, expected = over, x + y
        result = streaming.sweep_rows(add, x.numel(), into=over)
    assert total.dtype == features
    assert torch.equal(total, expected.to(features)) and torch.equal(copied, total)
    assert torch.equal(result, expected) and result.data_ptr() == over.data_ptr()
    assert [place.data_ptr() for place in places[:4]] == [
        total[:, i : i + 4].data_ptr() for i in (0, 4, 8, 12)
    ]
    assert streaming.sweep_rows(add, x.numel()) is not over and places[-1] is None
