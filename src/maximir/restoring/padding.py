"""Padding of any size to the multiples that a network takes, and back."""

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


def reflected(size: int, multiple: int = SIZE_MULTIPLE) -> tuple[np.ndarray, int]:
    """Return indices that pad one axis, and the index where the original starts.

    As the official evaluation (`run_eval.py`): first to even size at the end, then centred to a multiple of
    64; NumPy's `reflect`, which reflects again and again where the padding is larger than the image. The
    length is `padded_size`. For networks with another multiple all padding is at the end: the blocks of a
    JPEG stay where they were in training.
    """
    even = size + size % 2
    more = -even % multiple
    before = more // 2 if multiple == SIZE_MULTIPLE else 0
    indices = np.pad(np.arange(size), (0, even - size), mode="reflect")
    return np.pad(indices, (before, more - before), mode="reflect"), before


def pad(image: Tensor, multiple: int = SIZE_MULTIPLE) -> tuple[Tensor, Window]:
    """`[..., H, W]` of any size → reflect-padded to multiples, and the window to crop again."""
    h, w = image.shape[-2:]
    rows, top = reflected(h, multiple)
    columns, left = reflected(w, multiple)
    padded = image[..., torch.from_numpy(rows), :][..., torch.from_numpy(columns)]
    return padded, Window(top, left, h, w)
