import numpy as np
import pytest

from maximir.degradations.camera import (
    SHOT_RANGE,
    add_contrast,
    camera_noise,
    demosaic,
    mosaic,
    remove_contrast,
    sensor_noise,
    smooth_noise,
    to_encoded,
    to_linear,
)
from maximir.metrics import psnr


def scene(side=64, seed=0):
    """Smooth colours that cover most of the range."""
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 3)
    return (0.45 + 0.4 * np.sin(3 * x[..., None] + 2 * y[..., None] + phases)).astype(np.float32)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_levels_reach_from_hardly_visible_to_night():
    levels = []
    for seed in range(150):
        image = scene(48, seed)
        levels.append(psnr(camera_noise(image, np.random.default_rng(seed)), image, 1.0))
    assert min(levels) < 22 and max(levels) > 42
    assert min(levels) > 15 and 29 < np.median(levels) < 36
    assert np.histogram(levels, [20, 25, 30, 35, 40])[0].min() >= 11  # and no gap in between


def test_the_picture_itself_keeps_colour_and_sharpness():
    """The mean of many noisy versions is the clean image, even where every pixel differs from the next."""
    checks = 0.3 + 0.4 * (np.indices((32, 32)).sum(axis=0) % 2)
    image = (checks[..., None] * [1, 0.9, 0.8]).astype(np.float32)  # 4:2:0 would blur checks of colours
    mean = np.mean([camera_noise(image, np.random.default_rng(s)) for s in range(150)], axis=0)
    assert np.abs(mean.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 0.02
    assert np.polyfit((image - 0.5).ravel(), (mean - 0.5).ravel(), 1)[0] > 0.85


def test_without_noise_the_pipeline_changes_nothing(monkeypatch):
    monkeypatch.setattr(
        "maximir.degradations.camera.sensor_noise",
        lambda raw, shot, read, rng: np.zeros_like(raw),
    )
    monkeypatch.setattr("maximir.degradations.camera.chroma_blotches", lambda shape, rng: np.float32(0))
    monkeypatch.setattr("maximir.degradations.camera.as_file", lambda image, rng, **_: image)
    image = np.round(np.random.default_rng(0).random((32, 32, 3)) * 255).astype(np.float32) / 255
    for seed in range(20):
        noisy = camera_noise(image, np.random.default_rng(seed))
        assert np.abs(noisy - image).max() < 1e-4


def test_sensor_noise_follows_shot_and_read():
    for light in (0.0, 0.1, 0.4):
        raw = np.full((200, 200), light, np.float32)
        noise = sensor_noise(raw, 0.01, 0.0005, np.random.default_rng(0))
        assert noise.dtype == np.float32
        assert noise.mean() == pytest.approx(0, abs=2e-3)
        assert noise.var() == pytest.approx(0.01 * light + 0.0005, rel=0.05)
    full = sensor_noise(np.ones((50, 50), np.float32), 0.01, 0.0005, np.random.default_rng(0))
    assert full.max() <= 0 and full.min() < -0.1


def test_brighter_is_noisier_in_linear_light():
    variances = {}
    for grey in (0.15, 0.7):
        image = np.full((48, 48, 3), grey, np.float32)
        noisy = (camera_noise(image, np.random.default_rng(s)) for s in range(30))
        variances[grey] = np.array([to_linear(n).var() for n in noisy])
    assert np.mean(variances[0.7] > 2 * variances[0.15]) > 0.9


def test_noise_is_correlated_between_neighbours_and_channels():
    image = np.full((64, 64, 3), 0.5, np.float32)
    along, between = [], []
    for seed in range(20):
        noise = camera_noise(image, np.random.default_rng(seed)) - image
        along += [correlation(noise[1:], noise[:-1]), correlation(noise[:, 1:], noise[:, :-1])]
        between.append(abs(correlation(noise[..., 0], noise[..., 1])))
    assert np.mean(along) > 0.25 and np.mean(np.array(along) > 0.05) > 0.9
    assert np.mean(between) > 0.05


@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_mosaic_and_demosaic(phase):
    y, x = np.mgrid[:10, :13].astype(np.float32)
    plane = np.stack([y + 2 * x, 5 - y, 3 * x], axis=-1)  # bilinear interpolation is exact on planes
    raw = mosaic(plane, phase)
    assert raw[phase] == plane[phase][0]
    assert raw[1 - phase[0], 1 - phase[1]] == plane[1 - phase[0], 1 - phase[1]][2]
    np.testing.assert_allclose(demosaic(raw, phase)[1:-1, 1:-1], plane[1:-1, 1:-1], atol=1e-5)
    constant = np.broadcast_to(np.float32([0.1, 0.5, 0.9]), (10, 13, 3))
    np.testing.assert_allclose(demosaic(mosaic(constant, phase), phase), constant, atol=1e-6)  # to the edges


def test_tone_curves_have_inverses():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(to_encoded(to_linear(values)), values, atol=1e-6)
    assert to_linear(np.float32(0.5)) == pytest.approx(0.21404, abs=1e-5)
    for amount in (0.1, 0.5, 1.0):
        np.testing.assert_allclose(add_contrast(remove_contrast(values, amount), amount), values, atol=1e-6)
    assert add_contrast(np.float32(0.25), 1.0) == pytest.approx(0.15625)
    assert (
        to_linear(values).dtype
        == to_encoded(values).dtype
        == remove_contrast(values, 0.5).dtype
        == np.float32
    )


def test_smoothing_takes_more_colour_than_luma():
    noise = np.random.default_rng(0).standard_normal((64, 64, 3)).astype(np.float32)
    smooth = smooth_noise(noise, np.random.default_rng(1))
    luma = smooth.mean(axis=-1).std() / noise.mean(axis=-1).std()
    chroma = np.ptp(smooth, axis=-1).mean() / np.ptp(noise, axis=-1).mean()
    assert chroma < 0.5 and chroma < luma < 1


def test_read_noise_follows_shot_noise_as_measured(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "maximir.degradations.camera.sensor_noise",
        lambda raw, shot, read, rng: seen.append((shot, read)) or np.zeros_like(raw),
    )
    for seed in range(200):
        camera_noise(scene(16), np.random.default_rng(seed))
    shot, read = np.log(seen).T
    assert shot.min() >= np.log(SHOT_RANGE[0]) and shot.max() <= np.log(SHOT_RANGE[1])
    slope, offset = np.polyfit(shot, read, 1)
    assert slope == pytest.approx(2.18, abs=0.06) and offset == pytest.approx(1.20, abs=0.4)
    assert (read - slope * shot - offset).std() == pytest.approx(0.26, rel=0.2)
