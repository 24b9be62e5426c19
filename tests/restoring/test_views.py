"""Large photographs: light from a small view, detail from tiles."""

import numpy as np
import pytest

from maximir import Restorer, UsageError
from maximir.errors import NotEnoughMemory
from maximir.models import checkpoint
from maximir.restoring import filters, views


def nothing(part):
    pass


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def sky(height, width):
    """A smooth gradient, float32 in [0, 1]."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.repeat((0.4 + 0.3 * y + 0.1 * x)[..., None], 3, axis=2).astype(np.float32)


def columns(image):
    """As the models make them: sixteen cells across whatever the size, visible where cells are large."""
    cells = np.arange(image.shape[1]) * 16 // image.shape[1] % 2
    strength = 0.05 if image.shape[1] > views.SMALL else 0.0
    return image + np.float32(strength) * (cells[None, :, None] - np.float32(0.5))


def moods(image):
    """What tiles do: each guesses its own light."""
    return image + np.float32(0.3) * (np.float32(0.55) - image.mean())


@pytest.mark.parametrize("length", [1, 64, 511, 512, 513, 1000, 1024, 4000, 6016])
def test_tiles_cover_and_overlap(length):
    starts = views.tiles(length)
    ends = [min(start + views.TILE, length) for start in starts]
    assert starts[0] == 0 and ends[-1] == length
    for end, start in zip(ends, starts[1:], strict=False):
        assert end - start >= views.OVERLAP


@pytest.mark.parametrize("size", [(1024, 683), (683, 1100), (1500, 1500), (300, 3000), (1, 1200), (1200, 2)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_who_changes_nothing_gets_the_same_picture(size, kind):
    image = np.random.default_rng(1).random((*size, 3), np.float32)
    image = image if kind is np.float32 else (image * np.iinfo(kind).max).astype(kind)
    result = views.restore_in_views(image, lambda piece: np.array(views.to_unit(piece)), nothing)
    assert result.dtype == image.dtype
    small = views.shrink(image, *views.small_size(*size))
    assert rms(small - views.shrink(result, *small.shape[:2])) < 1e-5
    scale = 1 if kind is np.float32 else np.iinfo(kind).max
    assert np.abs(result.astype(float) - image).max() <= max(1e-6 * scale, 1 if kind is not np.float32 else 0)


def test_tiles_of_different_light_leave_no_seams():
    image = sky(1100, 1600)
    alone = np.concatenate([band.copy() for _, band in views.tiled(image, moods, lambda n: None)])
    result = views.restore_in_views(image, moods, nothing)
    whole = moods(image)
    assert rms(alone - whole) > 0.01, "the old way must fail, or this test shows nothing"
    assert rms(result - whole) < 0.002
    assert np.abs(np.diff(result - whole, axis=1)).max() < 0.001
    assert np.abs((result - whole).mean(axis=(0, 1))).max() < 0.001, "colours shift"


def test_columns_of_large_cells_are_gone():
    image = sky(700, 1600)
    whole = columns(image)
    result = views.restore_in_views(image, columns, nothing)
    assert rms(whole - image) > 0.02
    assert rms(result - image) < 0.001


def test_what_the_view_makes_of_small_things_does_not_show():
    """Stars: gone in the small view, and no dark spots where they are."""
    image = sky(1100, 1600)
    stars = np.zeros_like(image)
    stars[50::97, 50::101] = 0.5

    def no_stars_when_small(piece):
        return piece if max(piece.shape) < views.SMALL else views.shrink(sky(1100, 1600), *piece.shape[:2])

    result = views.restore_in_views(image + stars, no_stars_when_small, nothing)
    assert (result - image - stars).min() > -0.01
    assert rms(filters.blur(np.float32(image[:90, :90]), views.SMOOTH)[..., 0] - image[:90, :90, 0]) < 1e-3


def test_what_is_too_bright_in_a_tile_keeps_its_detail():
    """Tiles are not clipped before the light is right."""
    rng = np.random.default_rng(3)
    image = (rng.integers(100, 160, (1100, 1100, 3))).astype(np.uint8)

    def too_bright(piece):
        unit = np.array(views.to_unit(piece))
        return unit if max(piece.shape) > views.TILE else unit + np.float32(0.5)

    result = views.restore_in_views(image, too_bright, nothing)
    assert np.abs(result.astype(int) - image).max() <= 1


def test_detail_is_that_of_the_tiles():
    rng = np.random.default_rng(2)
    image = sky(1100, 1200) + 0.1 * rng.standard_normal((1100, 1200, 3)).astype(np.float32)

    def sharpen(piece):
        return piece + 0.5 * (piece - piece.mean(axis=(0, 1)))

    result = views.restore_in_views(image, sharpen, nothing)
    fine = result - np.roll(result, 1, axis=1)
    assert rms(fine) == pytest.approx(1.5 * rms(image - np.roll(image, 1, axis=1)), rel=0.05)


def test_progress_only_grows_to_the_end():
    seen = []
    views.restore_in_views(sky(1100, 1600), lambda piece: piece, seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0 and 0 < seen[0] < 0.5


@pytest.fixture
def restorers(tiny_model, gentle_weights, tmp_path, monkeypatch):
    """The same network, said to be for a task."""
    monkeypatch.setattr(views, "LARGE", 300)
    monkeypatch.setattr(views, "SMALL", 128)
    monkeypatch.setattr(views, "TILE", 128)
    model = checkpoint.load_model(gentle_weights)

    def make(task, precision="fp32", **options):
        path = tmp_path / f"{task}.safetensors"
        checkpoint.save_model(model, path, metadata={"task": task})
        return Restorer(path, precision=precision, **options)

    return make


@pytest.mark.slow
def test_who_is_seen_in_views(restorers):
    image = np.random.default_rng(0).integers(0, 256, (213, 320, 3), np.uint8)
    haze, noise, exact = restorers("dehaze"), restorers("denoise"), restorers("dehaze", view="exact")
    assert haze.way(213, 320) == "views" and haze.way(213, 299) == "whole"
    assert noise.way(213, 320) == exact.way(213, 320) == "whole"
    np.testing.assert_array_equal(noise(image), exact(image))
    assert (haze(image) != exact(image)).any()
    small = image[:, :299]
    np.testing.assert_array_equal(haze(small), exact(small))


@pytest.mark.slow
def test_grey_alpha_ensemble_and_progress_in_views(restorers):
    seen = []
    restorer = restorers("enhance", ensemble=True)
    image = np.random.default_rng(0).integers(0, 256, (60, 310, 4), np.uint8)
    result = restorer(image, progress=seen.append)
    np.testing.assert_array_equal(result[..., 3], image[..., 3])
    assert restorers("enhance")(image[..., 0]).shape == image.shape[:2]
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_memory_that_ends_in_a_tile_names_the_photograph(restorers, monkeypatch):
    def allocate(image):
        raise MemoryError

    for task, size in (("dehaze", (213, 320)), ("derain", (193, 256))):
        restorer = restorers(task)
        assert restorer.way(*size) != "whole"
        monkeypatch.setattr(restorer.model, "forward", allocate)
        with pytest.raises(NotEnoughMemory, match=f"^{size[1]} x {size[0]} pixels need more memory"):
            restorer(np.zeros((*size, 3), np.uint8))


def test_views_that_are_none():
    with pytest.raises(UsageError, match='view must be "auto" or "exact"'):
        Restorer("denoise", view="wide")
