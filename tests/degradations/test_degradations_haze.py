"""Haze: the scattering model holds for a depth, and made-up depths span light to strong haze."""

import numpy as np
from test_degradations import photograph, ramp

from maximir.degradations.haze import haze, made_up_depth, random_airlight, random_transmission, scatter


def test_scattering_model():
    image = photograph()
    t = np.exp(-0.4 * ramp())
    airlight = np.array([0.94, 0.97, 1.0], np.float32)
    hazy = scatter(image, t, airlight)
    np.testing.assert_allclose((hazy - airlight) / (image - airlight), np.stack([t] * 3, -1), rtol=1e-3)
    np.testing.assert_allclose(scatter(image, np.zeros_like(t), airlight) - airlight, 0, atol=1e-6)
    np.testing.assert_array_equal(scatter(image, np.ones_like(t), airlight), image)


def test_transmission_falls_with_depth():
    even = 0
    for seed in range(40):
        t = random_transmission(ramp(), np.random.default_rng(seed))
        assert t.min() >= 0 and t.max() <= 1
        beta = -np.log(t) / ramp()
        even += np.ptp(beta) < 1e-3 * beta.mean()
    assert 25 <= even <= 39  # the density of the air is mostly, but not always, the same everywhere


def test_far_is_closer_to_the_airlight():
    black = np.zeros((64, 72, 3), np.float32)
    for seed in range(20):
        hazy = haze(black, np.random.default_rng(seed), ramp()).mean(axis=(0, 2))
        assert hazy[-20:].mean() > hazy[:20].mean()


def test_unknown_depth_is_not_free_of_haze():
    depth = ramp().copy()
    depth[:10] = 0
    t = random_transmission(depth, np.random.default_rng(0))
    assert np.isfinite(t).all() and t[:10].max() < 1
    assert np.isfinite(random_transmission(np.zeros((8, 8), np.float32), np.random.default_rng(0))).all()


def test_light_to_strong():
    image = photograph(64, 64)
    means, spreads = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        depth = made_up_depth(image, rng)
        assert depth.shape == (64, 64) and depth.dtype == np.float32 and depth.min() > 0
        t = random_transmission(depth / depth.mean(), rng)
        means.append(t.mean())
        spreads.append(np.ptp(t))
    assert min(means) < 0.2 and max(means) > 0.9
    assert np.histogram(means, [0.1, 0.3, 0.5, 0.7, 0.97])[0].min() > 15
    assert np.mean(np.array(spreads) < 1e-6) > 0.1  # even haze
    assert np.mean(np.array(spreads) > 0.3) > 0.15  # clearly deeper somewhere


def test_airlight_is_light_and_nearly_grey():
    lights = np.array([random_airlight(np.random.default_rng(seed)) for seed in range(200)])
    assert lights.min() >= 0.7 and lights.max() <= 1
    tint = np.ptp(lights, axis=1)
    assert tint.max() <= 0.1 + 1e-6 and tint.max() > 0.03 and np.median(tint) == 0
