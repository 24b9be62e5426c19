import numpy as np
import pytest

from maximir.degradations.files import quantise
from maximir.degradations.noise import blind_gaussian, gaussian_25, gaussian_noise


def test_gaussian_noise_has_the_stated_strength_and_is_not_clipped():
    noise = gaussian_noise(np.zeros((200, 200, 3), np.float32), 40, np.random.default_rng(0))
    assert noise.std() * 255 == pytest.approx(40, rel=0.01)
    assert noise.min() < 0
    assert noise.dtype == np.float32
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02


def test_gaussian_25():
    clean = np.ones((100, 100, 3), np.float32)
    noisy = gaussian_25(clean, np.random.default_rng(0))
    assert noisy.std() * 255 == pytest.approx(25, rel=0.02)
    assert noisy.mean() == pytest.approx(1, abs=0.002)  # so it is not clipped


def test_half_of_the_blind_noise_is_as_in_files():
    clean = np.full((64, 64, 3), 0.5, np.float32)
    rng = np.random.default_rng(0)
    in_files, strengths = [], []
    for _ in range(300):
        noisy = blind_gaussian(clean, rng)
        in_files.append(np.array_equal(noisy, quantise(noisy)))
        strengths.append(noisy.std() * 255)
    assert np.mean(in_files) == pytest.approx(0.5, abs=0.1)
    assert np.max(strengths) == pytest.approx(55, abs=2)
    assert np.mean(strengths) == pytest.approx(27.5, abs=3)
