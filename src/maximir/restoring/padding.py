"""Padding of any size to multiples of 64 and back, as the official evaluation (`run_eval.py`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maximir.network.config import SIZE_MULTIPLE, padded_size

__all__ = ["Window", "pad", "padded_size", "reflected"]


class Window(NamedTuple):
    """Position of the image in the padded one."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, image: Tensor) -> Tensor:
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


def reflected(size: int) -> tuple[np.ndarray, int]:
    """Return indices that pad one axis, and the index where the original starts.

    First to even size at the end, then centred to a multiple of 64; NumPy's `reflect`, which reflects
    again and again where the padding is larger than the image. The length is `padded_size`.
    """
    even = size + size % 2
    before = -even % SIZE_MULTIPLE // 2
    indices = np.pad(np.arange(size), (0, even - size), mode="reflect")
    return np.pad(indices, before, mode="reflect"), before


def pad(image: Tensor) -> tuple[Tensor, Window]:
    """`[..., H, W]` of any size → reflect-padded to multiples of 64, and the window to crop again."""
    h, w = image.shape[-2:]
    rows, top = reflected(h)
    columns, left = reflected(w)
    padded = image[..., torch.from_numpy(rows), :][..., torch.from_numpy(columns)]
    return padded, Window(top, left, h, w)
