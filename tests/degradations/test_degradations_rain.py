"""Rain: only light is added, in streaks that have a direction."""

import numpy as np
import pytest
from test_degradations import photograph

from maximir.degradations.rain import compose, grain, rain_mask, streaks, veil


def slant(layer: np.ndarray) -> float:
    """The main direction of a layer of streaks, in degrees from the vertical, by the structure tensor.

    Central differences damp the finer of the two waves, which exaggerates slants by up to 3 degrees.
    """
    gy, gx = np.gradient(layer)
    normal = 0.5 * np.arctan2(2 * (gx * gy).sum(), (gx**2).sum() - (gy**2).sum())
    return float(-np.degrees(normal))


def test_streaks_only_brighten():
    image = photograph()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        mask = rain_mask(image.shape[:2], rng)
        assert mask.min() >= 0 and mask.max() <= 1
        wet = compose(image, mask, rng)
        assert wet.max() <= 1 and (wet >= image - 1e-6).all()
        assert wet.mean() > image.mean()


@pytest.mark.parametrize("degrees", [-40, -15, 0, 25, 45])
def test_direction(degrees: int):
    rng = np.random.default_rng(5)
    common = {"angle": np.radians(degrees), "length": 60, "width": 3, "brightness": 0.4}
    assert slant(streaks((128, 128), rng, **common, coverage=0.1)) == pytest.approx(degrees, abs=4)
    assert slant(grain((128, 128), rng, **common, density=0.01)) == pytest.approx(degrees, abs=4)


def test_streaks_measure_what_they_promise():
    shape = (200, 200)
    rng = np.random.default_rng(1)
    common = {"angle": 0.2, "length": 40, "width": 2, "brightness": 0.5}
    few = np.mean([streaks(shape, rng, **common, coverage=0.02) for _ in range(20)], axis=0)
    many = np.mean([streaks(shape, rng, **common, coverage=0.1) for _ in range(20)], axis=0)
    # A Gaussian profile of the width w at half its height has the area of a box 1.06 w wide.
    assert few.mean() == pytest.approx(1.06 * 0.02 * 0.5, rel=0.15)
    assert many.mean() == pytest.approx(1.06 * 0.1 * 0.5, rel=0.1)  # of which overlaps take a little
    # No border is left dry: streaks may begin outside.
    for edge in (many[:20], many[-20:], many[:, :20], many[:, -20:]):
        assert edge.mean() > 0.5 * many.mean()


def test_seeds_differ_in_direction_and_strength():
    masks = [rain_mask((96, 96), np.random.default_rng(seed)) for seed in range(80)]
    slants = np.array([slant(mask) for mask in masks])
    assert slants.min() < -15 and slants.max() > 15 and abs(np.median(slants)) < 10
    means = np.array([mask.mean() for mask in masks])
    assert means.min() < 0.02 and means.max() > 0.2


def test_veil_lowers_contrast():
    image = photograph()
    for seed in range(20):
        assert veil(image, np.random.default_rng(seed)).std() < image.std()
