"""What holds for every degradation. How each one looks is tested in the file of its module."""

import numpy as np
import pytest

from maximir.degradations import DEGRADATIONS

IN_FILES = [
    "camera-noise",
    "compression",
    "rain",
    "raindrops",
    "haze",
    "depth-haze",
    "low-light",
]  # always as a file holds them


def photograph(height=64, width=72):
    """Smooth waves of different colours, over most of the range."""
    y, x = np.mgrid[:height, :width]
    waves = [0.5 + 0.4 * np.sin(x / a + y / b) for a, b in ((9, 17), (21, 11), (13, 29))]
    return np.stack(waves, axis=-1).astype(np.float32)


def ramp(height=64, width=72):
    """A depth that grows from left to right."""
    return np.broadcast_to(np.linspace(0.5, 6, width, dtype=np.float32), (height, width))


def degrade(name, image, seed):
    return DEGRADATIONS[name](image, np.random.default_rng(seed), ramp(*image.shape[:2]))


@pytest.mark.parametrize("shape", [(64, 64), (49, 70)])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_seed_decides(name, shape):
    image = photograph(*shape)
    before = image.copy()
    results = [degrade(name, image, seed) for seed in range(10)]
    for seed, degraded in enumerate(results):
        assert degraded.shape == image.shape and degraded.dtype == np.float32
        assert np.array_equal(degraded, degrade(name, image, seed))
    assert len({degraded.tobytes() for degraded in results}) == len(results)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", IN_FILES)
def test_what_is_in_files_has_their_levels(name):
    for seed in range(10):
        degraded = degrade(name, photograph(40, 40), seed)
        assert degraded.min() >= 0 and degraded.max() <= 1
        np.testing.assert_allclose(degraded * 255, np.round(degraded * 255), atol=1e-4)


@pytest.mark.parametrize("shape", [(33, 90), (8, 8), (1, 5)])
@pytest.mark.parametrize("name", ["rain", "raindrops", "haze", "low-light"])
def test_any_size(name, shape):
    for seed in range(10):
        assert degrade(name, photograph(*shape), seed).shape == (*shape, 3)


def test_depth_goes_only_to_what_needs_it():
    for name, degradation in DEGRADATIONS.items():
        near, far = (
            degradation(photograph(40, 40), np.random.default_rng(5), depth)
            for depth in (ramp(40, 40), ramp(40, 40)[:, ::-1])
        )
        assert np.array_equal(near, far) != degradation.needs_depth, name
        assert degradation.needs_depth == (name == "depth-haze")
