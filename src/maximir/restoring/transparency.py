"""Colours under fully transparent pixels.

Programs leave them there by chance, and the network mixes them into the visible colours. So they are replaced
by a smooth continuation of the visible ones before the network runs.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 4  # pixels: side of the cells that the pyramid begins with
BAND = 64 * CELL  # rows


def fill_hidden(image: np.ndarray, alpha: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return `[H, W, 3]` with filled colours where alpha `[H, W]` is 0, and where that is; None: nowhere."""
    hidden = None if alpha is None else alpha <= 0
    if hidden is None or not hidden.any():
        return image, None
    return fill(image, hidden), hidden


def fill(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return a copy of `image` whose hidden pixels continue the visible ones.

    A pyramid of means over the visible pixels, each level half as large as the one before; a cell without a
    visible pixel takes the colour of the coarser level, interpolated.
    Besides the copy it needs about 8 bytes a pixel.

    Args:
        image: `[H, W, 3]`; integers or floating. Values of hidden pixels do not count, not even NaN.
        hidden: `[H, W]` bool.
    """
    filled = image.copy()
    cells = continued(*_cells(image, hidden))
    if image.dtype.kind != "f":
        cells = cells.round()
    for row in range(0, len(image), BAND):
        rows, columns = np.nonzero(hidden[row : row + BAND])
        filled[row + rows, columns] = cells[(row + rows) // CELL, columns // CELL].astype(image.dtype)
    return filled


def _cells(image: np.ndarray, hidden: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the means of the visible pixels of each cell, [3, h, w], and their share of it, [1, h, w]."""
    parts = []
    for row in range(0, len(image), BAND):
        visible = ~hidden[row : row + BAND, :, None]
        band = np.where(visible, image[row : row + BAND], 0).astype(np.float32)
        means, shares = (torch.from_numpy(each.transpose(2, 0, 1)) for each in (band, visible))
        parts.append(_shrunk(means, shares, CELL))
    return torch.cat([means for means, _ in parts], 1), torch.cat([shares for _, shares in parts], 1)


def _shrunk(means: Tensor, shares: Tensor, by: int = 2) -> tuple[Tensor, Tensor]:
    """Merge `by` x `by` cells into one."""
    shares = shares.float()
    sums = F.avg_pool2d(means * shares, by, ceil_mode=True)
    shares = F.avg_pool2d(shares, by, ceil_mode=True)
    return torch.where(shares > 0, sums / shares.clamp(min=1e-6), 0), shares


def continued(means: Tensor, shares: Tensor) -> np.ndarray:
    """Return `[h, w, 3]`: the means, and where no pixel is visible those of coarser levels."""
    levels = [(means, shares)]
    while max(levels[-1][1].shape) > 1 and not (levels[-1][1] > 0).all():
        levels.append(_shrunk(*levels[-1]))
    result, _ = levels.pop()
    while levels:
        means, shares = levels.pop()
        wide = F.interpolate(result[None], size=means.shape[1:], mode="bilinear", align_corners=False)[0]
        result = torch.where(shares > 0, means, wide)
    return result.permute(1, 2, 0).numpy()
