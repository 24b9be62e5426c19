"""The box leaves even areas even: models for detail draw no grid on flat fields and gradients."""

import numpy as np
import pytest

from maximir import Restorer


def residual(plane):
    """Rms behind the best cubic fit."""
    y, x = np.mgrid[-1 : 1 : plane.shape[0] * 1j, -1 : 1 : plane.shape[1] * 1j]
    terms = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=-1).reshape(plane.size, -1)
    fit, *_ = np.linalg.lstsq(terms, plane.ravel(), rcond=None)
    return np.sqrt(np.square(plane.ravel() - terms @ fit).mean())


@pytest.mark.parametrize("task", ["denoise", "deblur", "derain"])
def test_even_areas_stay_even(task):
    restorer = Restorer(f"{task}-box")
    x = np.linspace(0.2, 0.8, 320)[None].repeat(192, axis=0)
    for field in (np.full((256, 256), 0.5), x):
        result = restorer(np.repeat(field[..., None], 3, axis=-1).astype(np.float32)) * 255
        assert max(residual(result[..., c].astype(float)) for c in range(3)) < 0.7
        assert np.abs(result.mean() - 255 * field.mean()) < 1.5


def test_the_measure_sees_a_grid():
    grid = np.full((256, 256), 128.0) + 2 * (np.arange(256) // 16 % 2)
    assert residual(grid) > 0.7
