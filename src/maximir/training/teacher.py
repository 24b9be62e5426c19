"""A teacher: a model whose results are learned from, beside or instead of clean photographs.

Three kinds of lessons. A model that is trained on new damage forgets what it did well: so it is shown, for a
share of the samples, what the teacher makes of them. What has no original at all (how would a professional
retouch this?) can only be learned so. And a network whose blocks and grid show in even areas is taught what
is smooth in its own result of an even field: the light that it has learned, without the pattern.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from maximir.engine import network as engine
from maximir.models import checkpoint

# What a sample is to become.
CLEAN, TAUGHT, SMOOTHED = 0, 1, 2  # its own clean image; the teacher's result; what is smooth in that
DEGREE = 3  # of the polynomials that count as smooth


class Teacher:
    """Restores samples for a network to learn from."""

    def __init__(self, name_or_path: str, device: torch.device) -> None:
        """
        Raises:
            MaximirError: there is no such model, or its file cannot be read.
        """
        self.model = checkpoint.load_model(name_or_path).to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def targets(self, degraded: Tensor, clean: Tensor, lessons: Tensor) -> Tensor:
        """`clean`, with the teacher's results in place of what is to be taught.

        Args:
            degraded, clean: `[N, 3, H, W]`.
            lessons: `[N]`, of `CLEAN`, `TAUGHT`, `SMOOTHED`.
        """
        chosen = (lessons != CLEAN).nonzero()[:, 0]
        if not len(chosen):
            return clean
        results = engine.run(self.model, degraded[chosen])[-1][-1].clamp(0, 1)
        even = (lessons[chosen] == SMOOTHED).nonzero()[:, 0]
        results[even] = smooth_part(results[even])
        return clean.index_copy(0, chosen, results)


def smooth_part(images: Tensor) -> Tensor:
    """The best polynomial of third degree in x and y for each plane of `[..., H, W]`."""
    basis = polynomials(*images.shape[-2:]).to(images.device)
    flat = images.flatten(-2).to(basis.dtype)
    return (flat @ basis @ basis.T).to(images.dtype).view_as(images)


@lru_cache(16)
def polynomials(height: int, width: int) -> Tensor:
    """An orthonormal basis, float64 `[H·W, 10]`: sums over so many pixels lose digits in float32."""
    y = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, width, dtype=torch.float64)[None]
    terms = [(x**i * y**j).flatten() for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    return torch.linalg.qr(torch.stack(terms, dim=-1))[0]
