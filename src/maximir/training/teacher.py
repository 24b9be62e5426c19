"""A teacher: a model whose results are training targets, beside or instead of clean photographs.

It has three uses. A model trained on new damage loses earlier abilities, so a share of its samples learns the
teacher's results instead. Some tasks, such as retouching, have no original for most photographs; there the
teacher's result is the only target. And a network whose block and grid pattern shows in even areas learns the
smooth part of its own result on an even field: its change of light and colour, without the pattern.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from maximir.engine import network as engine
from maximir.models import checkpoint

# Lessons, the kinds of target: the clean image; the teacher's result; the smooth part of that result.
CLEAN, TAUGHT, SMOOTHED = 0, 1, 2
DEGREE = 3  # of the polynomials that count as smooth


class Teacher:
    """Restores samples for a network to learn from.

    Attributes:
        multiple: heights and widths of images must be multiples of this many pixels.
    """

    def __init__(self, name_or_path: str, device: torch.device) -> None:
        """Load the teacher's weights.

        Raises:
            MaximirError: there is no such model, or its file cannot be read.
        """
        self.model = checkpoint.load_model(name_or_path).to(device).eval().requires_grad_(False)
        self.multiple = self.model.config.size_multiple

    @torch.no_grad()
    def targets(self, degraded: Tensor, clean: Tensor, lessons: Tensor) -> Tensor:
        """Return `clean` with the teacher's results in place of the samples that learn them.

        Args:
            degraded, clean: `[N, 3, H, W]`.
            lessons: `[N]`, each `CLEAN`, `TAUGHT` or `SMOOTHED`.
        """
        chosen = (lessons != CLEAN).nonzero()[:, 0]
        if not len(chosen):
            return clean
        results = engine.run(self.model, degraded[chosen])[-1][-1].clamp(0, 1)
        even = (lessons[chosen] == SMOOTHED).nonzero()[:, 0]
        results[even] = smooth_part(results[even])
        return clean.index_copy(0, chosen, results)


def smooth_part(images: Tensor) -> Tensor:
    """Fit a polynomial of third degree in x and y to each plane of `[..., H, W]`, by least squares."""
    basis = polynomials(*images.shape[-2:]).to(images.device)
    flat = images.flatten(-2).to(basis.dtype)
    return (flat @ basis @ basis.T).to(images.dtype).view_as(images)


@lru_cache(16)
def polynomials(height: int, width: int) -> Tensor:
    """Make an orthonormal basis, float64 `[H·W, 10]`: float32 loses digits in sums over so many pixels."""
    y = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, width, dtype=torch.float64)[None]
    terms = [(x**i * y**j).flatten() for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    return torch.linalg.qr(torch.stack(terms, dim=-1))[0]
