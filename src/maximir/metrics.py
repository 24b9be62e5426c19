"""Image quality by stated conventions."""

from __future__ import annotations

import numpy as np


def psnr(image: np.ndarray, reference: np.ndarray, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, in float64; inf for equal images.

    Args:
        image, reference: same shape, values in [0, peak].
    """
    if image.shape != reference.shape:
        raise ValueError(f"psnr: shapes differ: {image.shape} and {reference.shape}")
    error = np.mean((image.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))
