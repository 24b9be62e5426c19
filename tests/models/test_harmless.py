"""The box leaves even areas even: no grid on flat fields and gradients."""

import numpy as np
import pytest

from helpers.evenness import residual
from maximir import Restorer


@pytest.mark.slow
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
