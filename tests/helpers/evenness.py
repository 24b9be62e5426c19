"""How far a plane is from even, for the tests and for scripts/harmless.py."""

import numpy as np

# Follows the curve that a model for light gives a gradient, also its kink where dehazing ends at bright areas
# (experiments, 31), and no period of 64 pixels.
DEGREE = 10


def residual(plane: np.ndarray) -> float:
    """Return the rms of `[H, W]` after subtracting its best polynomial of degree `DEGREE`."""
    y, x = np.mgrid[-1 : 1 : plane.shape[0] * 1j, -1 : 1 : plane.shape[1] * 1j]
    powers = [(i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    terms = np.stack([x**i * y**j for i, j in powers], axis=-1).reshape(plane.size, -1)
    fit = np.linalg.solve(terms.T @ terms, terms.T @ plane.ravel())  # normal equations: millions of pixels
    return float(np.sqrt(np.square(plane.ravel() - terms @ fit).mean()))
