"""Low light: dark, noisy, in few levels, and sometimes with a cast."""

import numpy as np
import pytest
from test_degradations import photograph

from maximir.degradations.lowlight import KINDS, correlated, low_light, sensor_noise


def test_darkens_a_little_to_almost_black():
    image = photograph()
    dark = [low_light(image, np.random.default_rng(seed)) for seed in range(200)]
    means = np.array([d.mean() for d in dark])
    assert means.min() < 0.025 and means.max() > 0.38
    assert (means < image.mean()).all()
    # The true LOL inputs have means of 10 to 30 of 255.
    assert np.mean((means > 10 / 255) & (means < 30 / 255)) > 0.15
    for d in dark:
        np.testing.assert_allclose(d * 255, np.round(d * 255), atol=1e-4)
    levels = [len(np.unique(d)) for d in dark if d.mean() < 20 / 255]
    assert np.median(levels) < 64


def test_keeps_the_scene():
    image = photograph()
    for seed in range(40):
        dark = low_light(image, np.random.default_rng(seed))
        correlation = np.corrcoef(dark[..., 1].ravel(), image[..., 1].ravel())[0, 1]
        assert correlation > 0.5


def test_colour_cast():
    grey = np.full((32, 32, 3), 0.5, np.float32)
    ratios = []
    for seed in range(200):
        red, green, _ = low_light(grey, np.random.default_rng(seed)).mean(axis=(0, 1))
        ratios.append(red / green)
    assert 0.95 < np.median(ratios) < 1.15
    assert np.mean(np.array(ratios) > 1.3) > 0.02  # the strong red one
    assert np.mean(np.abs(np.log(ratios)) < 0.1) > 0.4  # mostly neutral


def test_noise_is_that_of_photons():
    gains = np.array([1.5, 1, 1.2], np.float32)
    bright, dim = (np.full((200, 200, 3), level, np.float32) for level in (0.4, 0.1))
    for seed in range(4):  # with and without correlation
        noise = [sensor_noise(b, 1e-3, 0, gains, np.random.default_rng(seed)) for b in (bright, dim)]
        np.testing.assert_allclose(noise[0].std(axis=(0, 1)), gains * np.sqrt(1e-3 * 0.4), rtol=0.03)
        np.testing.assert_allclose(noise[0], 2 * noise[1], atol=1e-5)
    read = sensor_noise(np.zeros((200, 200, 3), np.float32), 1e-3, 0.01, gains, np.random.default_rng(0))
    np.testing.assert_allclose(read.std(axis=(0, 1)), 0.01 * gains, rtol=0.03)


def test_correlation_keeps_the_variance():
    noise = np.random.default_rng(0).standard_normal((300, 300, 3), dtype=np.float32)
    mixed = correlated(noise, 0.3)
    assert mixed.std() == pytest.approx(1, abs=0.02)
    neighbours = np.corrcoef(mixed[:, 1:, 0].ravel(), mixed[:, :-1, 0].ravel())[0, 1]
    assert neighbours == pytest.approx(2 * 0.3 / (1 + 2 * 0.3**2), abs=0.02)


def test_shares_add_up():
    assert sum(kind.share for kind in KINDS) == pytest.approx(1)
