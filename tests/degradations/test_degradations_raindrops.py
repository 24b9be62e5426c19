"""Raindrops: soft blobs that hide the scene, brighter or darker than it, and leave the rest alone."""

import numpy as np
import pytest
from test_degradations import photograph

from maximir.degradations.raindrops import outlines, raindrops, veil, water

FEW = {"diameter": 12, "spread": 0.3, "coverage": 0.05, "blur": 1.5}
MANY = {"diameter": 8, "spread": 0.3, "coverage": 0.4, "blur": 1.0}


def detailed(height=128, width=128, strength=0.1):
    """The waves of `photograph` with a fine texture on top."""
    texture = np.random.default_rng(0).uniform(-strength, strength, (height, width, 1))
    return np.clip(photograph(height, width) + texture, 0, 1).astype(np.float32)


def detail(image):
    """Gradient energy of every pixel, [H, W]."""
    return sum(g**2 for g in np.gradient(image.mean(axis=-1)))


def sizes(seed, **changes):
    """The share of a canvas of 200 x 200 in each drop, as the diameter of such a disc in pixels."""
    common = {"diameter": 10, "spread": 0.3, "coverage": 0.2} | changes
    *_, number = outlines((200, 200), np.random.default_rng(seed), **common)
    areas = np.bincount(number)
    return 2 * np.sqrt(areas[areas > 0] / np.pi)


def test_the_picture_between_the_drops_is_unchanged():
    image = np.round(detailed() * 255) / np.float32(255)
    untouched = []
    for seed in range(60):
        wet = raindrops(image, np.random.default_rng(seed), veil_fraction=0)
        untouched.append((np.abs(wet - image) < 1e-4).all(axis=-1).mean())
    assert max(untouched) > 0.85
    assert np.mean(np.array(untouched) > 0.5) > 0.3  # JPEG files and dense drops are the rest
    for seed in range(10):
        cover = water(image, np.random.default_rng(seed), **FEW)[..., 3]
        assert (cover == 0).mean() > 0.7


def test_seeds_differ_in_coverage():
    image = detailed()
    covered = []
    for seed in range(100):
        wet = raindrops(image, np.random.default_rng(seed), veil_fraction=0)
        covered.append((np.abs(wet - image).max(axis=-1) > 0.1).mean())
    assert min(covered) < 0.03 and max(covered) > 0.3
    assert 0.05 < np.median(covered) < 0.25


def test_drops_measure_what_they_promise():
    medians = [np.median(sizes(1, diameter=d)) for d in (6, 12, 24)]
    assert medians == pytest.approx([6, 12, 24], rel=0.25)
    assert np.std(np.log(sizes(2, spread=0.5))) > 1.5 * np.std(np.log(sizes(2, spread=0.1)))
    shares = []
    for seed in range(20):
        index, *_ = outlines((200, 200), np.random.default_rng(seed), diameter=10, spread=0.3, coverage=0.2)
        assert index.min() >= 0 and index.max() < 200 * 200
        shares.append(len(index) / 200**2)
    assert np.mean(shares) == pytest.approx(0.2, rel=0.2)


def test_numbers_vary():
    counts = [len(sizes(seed, coverage=0.05)) for seed in range(20)]
    assert len(set(counts)) > 5
    assert len(sizes(0, coverage=0.4)) > 4 * np.mean(counts)
    assert len(sizes(0, coverage=0)) == 0


def test_no_border_is_left_dry():
    covers = [water(detailed(64, 64), np.random.default_rng(seed), **MANY)[..., 3] for seed in range(60)]
    mean = np.mean(covers, axis=0)
    for edge in (mean[:6], mean[-6:], mean[:, :6], mean[:, -6:]):
        assert edge.mean() == pytest.approx(mean.mean(), rel=0.25)


def test_edges_are_soft():
    cover = water(detailed(), np.random.default_rng(0), diameter=30, spread=0.1, coverage=0.2, blur=2)[..., 3]
    assert cover.max() > 0.5
    assert max(np.abs(np.diff(cover, axis=axis)).max() for axis in (0, 1)) < 0.3


def test_drops_hide_detail_and_both_brighten_and_darken():
    image = detailed(strength=0.25)  # drops have shades of their own, though much smoother
    left = []
    for seed in range(20):
        drops = water(image, np.random.default_rng(seed), **MANY | {"diameter": 16})
        cover = drops[..., 3]
        inside = cover > 0.6
        assert inside.any()
        wet = image * (1 - cover[..., None]) + drops[..., :3]
        left.append(detail(wet)[inside].mean() / detail(image)[inside].mean())
        change = (wet - image).mean(axis=-1)[inside]
        assert (change > 0.05).mean() > 0.03 and (change < -0.05).mean() > 0.03
    assert max(left) < 0.5 and np.mean(left) < 0.3


def test_drops_are_light_at_the_bottom():
    image = np.full((128, 128, 3), 0.4, np.float32)
    slopes = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        drops = water(image, rng, diameter=20, spread=0.2, coverage=0.1, blur=1.5)
        light = (drops[..., :3] - image * drops[..., 3:]).mean(axis=-1)
        # Light above and dark below every pixel of a drop: the vertical gradient, where drops are covering.
        slopes.append((np.gradient(light, axis=0) * drops[..., 3]).sum())
    assert np.mean(np.array(slopes) > 0) > 0.8


def test_veil_softens():
    image = detailed()
    for seed in range(10):
        film = veil(image, np.random.default_rng(seed))
        assert detail(film).mean() < detail(image).mean()
        assert film.shape == image.shape and film.min() >= 0 and film.max() <= 1.0001
