"""The box leaves even areas even: no grid on flat fields and gradients."""

import numpy as np
import pytest

from maximir import Restorer


def residual(plane):
    """Rms behind the best polynomial of degree 6: it follows a tone curve, and no period of 64 pixels."""
    y, x = np.mgrid[-1 : 1 : plane.shape[0] * 1j, -1 : 1 : plane.shape[1] * 1j]
    terms = np.stack([x**i * y**j for i in range(7) for j in range(7 - i)], axis=-1).reshape(plane.size, -1)
    fit, *_ = np.linalg.lstsq(terms, plane.ravel(), rcond=None)
    return np.sqrt(np.square(plane.ravel() - terms @ fit).mean())


@pytest.mark.parametrize("task", ["denoise", "deblur", "derain", "dehaze", "enhance", "retouch"])
def test_even_areas_stay_even(task):
    restorer = Restorer(f"{task}-box")
    x = np.linspace(0.2, 0.8, 320)[None].repeat(192, axis=0)
    for field in (np.full((256, 256), 0.5), x):
        result = restorer(np.repeat(field[..., None], 3, axis=-1).astype(np.float32)) * 255
        assert max(residual(result[..., c].astype(float)) for c in range(3)) < 0.7
        if task not in ("dehaze", "enhance", "retouch"):
            assert np.abs(result.mean() - 255 * field.mean()) < 1.5


@pytest.mark.parametrize("period", [8, 16, 64])
def test_the_measure_sees_a_grid(period):
    grid = np.full((256, 256), 128.0) + 2 * (np.arange(256) // (period // 2) % 2)
    assert residual(grid) > 0.7
