import numpy as np
import pytest
from test_degradations import photograph

from maximir.degradations import files
from maximir.degradations.files import as_file, compress, quantise
from maximir.metrics import psnr


def test_quantising_clips_and_rounds_to_8_bits():
    values = np.float32([-0.5, 0.4 / 255, 0.6 / 255, 0.5, 254.6 / 255, 1.5])
    quantised = quantise(values)
    assert quantised.dtype == np.float32
    np.testing.assert_array_equal(quantised, np.float32([0, 0, 1, 128, 255, 255]) / 255)
    np.testing.assert_array_equal(quantise(quantised), quantised)


def test_jpeg_keeps_more_at_a_higher_quality():
    image = photograph()
    assert psnr(compress(image, "JPEG", 95), image, 1.0) > psnr(compress(image, "JPEG", 30), image, 1.0) + 3
    assert psnr(compress(image, "JPEG", 30), image, 1.0) > 25


def test_subsampling_loses_colour_but_no_brightness():
    rng = np.random.default_rng(0)
    colours = rng.random((40, 40, 3), dtype=np.float32)
    grey = np.repeat(rng.random((40, 40, 1), dtype=np.float32), 3, axis=-1)
    full, half = (psnr(compress(colours, "JPEG", 95, subsample=s), colours, 1.0) for s in (False, True))
    assert full > half + 10
    full, half = (psnr(compress(grey, "JPEG", 95, subsample=s), grey, 1.0) for s in (False, True))
    assert full == pytest.approx(half, abs=0.5)


@pytest.mark.parametrize(("subsample", "period"), [(False, 8), (True, 16)])
def test_the_corner_places_the_grid_of_blocks(subsample, period):
    """A crop through a JPEG whose grid begins elsewhere is that crop of the whole image's JPEG."""
    whole = photograph(96, 96)
    stored = compress(whole, "JPEG", 40, subsample=subsample)
    top, left = 2 * period + 3, period + 5
    inside = np.s_[period : 2 * period, period : 2 * period]  # the blocks at the border see what is beyond
    crop, expected = whole[top:, left:], stored[top:, left:]
    placed = compress(crop, "JPEG", 40, subsample=subsample, corner=(3, 5))
    assert placed.shape == crop.shape and placed.dtype == np.float32
    # Decoders smooth subsampled colour across the borders of blocks, so look at the inner blocks.
    np.testing.assert_array_equal(placed[inside], expected[inside])
    for corner in ((0, 0), (5, 3)):
        misplaced = compress(crop, "JPEG", 40, subsample=subsample, corner=corner)
        assert not np.array_equal(misplaced[inside], expected[inside])


def test_a_share_of_the_files_are_jpegs_of_both_kinds(monkeypatch):
    seen = []
    monkeypatch.setattr(
        files,
        "compress",
        lambda image, kind, quality, **rest: seen.append((quality, *rest.values())) or image,
    )
    rng = np.random.default_rng(0)
    image = photograph(8, 8) * 1.2
    others = 0
    for _ in range(2000):
        others += np.array_equal(as_file(image, rng, jpegs=0.3, qualities=(75, 98)), quantise(image))
    assert others + len(seen) == 2000
    assert len(seen) == pytest.approx(600, abs=80)
    qualities, subsampled, corners = zip(*seen, strict=True)
    assert set(qualities) == set(range(75, 99))
    assert np.mean(subsampled) == pytest.approx(0.5, abs=0.08)
    rows, columns = zip(*corners, strict=True)
    assert set(rows) == set(columns) == set(range(16))
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.15


@pytest.mark.parametrize("jpegs", [0.0, 1.0])
def test_none_or_all_of_the_files_are_jpegs(jpegs):
    rng = np.random.default_rng(0)
    image = photograph(24, 24)
    saved = [as_file(image, rng, jpegs=jpegs) for _ in range(20)]
    assert np.mean([np.array_equal(file, quantise(image)) for file in saved]) == 1 - jpegs
    assert all(psnr(file, image, 1.0) > 30 for file in saved)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_every_codec_keeps_more_at_a_higher_quality(kind):
    image = photograph(48, 40)
    low, high = (psnr(compress(image, kind, quality), image, 1.0) for quality in (20, 90))
    assert high > low + 1.5
