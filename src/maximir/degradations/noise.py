"""White Gaussian noise."""

from __future__ import annotations

import numpy as np

from maximir.degradations.files import as_file


def gaussian_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise, the same in all channels, not clipped.

    Args:
        image: float32 [H, W, 3] in [0, 1].
        sigma: standard deviation on the scale of 0-255.
    """
    return image + np.float32(sigma / 255) * rng.standard_normal(image.shape, dtype=np.float32)


def gaussian_25(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise of sigma 25, the middle of the field's tables."""
    return gaussian_noise(image, 25.0, rng)


def blind_gaussian(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise of unknown strength, sigma uniform in [0, 55].

    The field's tables use unclipped float noise; users have files. Half of the images get noise as in a file:
    clipped and rounded to 8 bits, a tenth of them as JPEG.
    """
    noisy = gaussian_noise(image, rng.uniform(0, 55.0), rng)
    return as_file(noisy, rng, jpegs=0.1) if rng.random() < 0.5 else noisy
