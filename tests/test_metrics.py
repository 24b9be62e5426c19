import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from maximir.metrics import psnr


def test_psnr_by_hand():
    reference = np.zeros((2, 2, 3), np.uint8)
    assert psnr(reference, reference) == float("inf")
    assert psnr(reference + 255, reference) == 0
    assert psnr(reference + 10, reference) == pytest.approx(20 * np.log10(25.5))


def test_psnr_is_scikit_images():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(2))
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a), abs=1e-9)
    assert psnr(a / 255, b / 255, peak=1.0) == pytest.approx(psnr(a, b))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        psnr(np.zeros((2, 2)), np.zeros((2, 3)))
