"""8-bit storage of weights: a quarter of float32's size. Networks compute with the unpacked float32 values.

A weight `[rows, ...]` becomes `NAME`, int8 of the same shape, and `NAME.scale`, float16 `[rows]`. A row's
scale is the one of several candidates with the least squared error; slightly clipping the largest weights
often wins. The most sensitive parameters stay float16: convolutions from and to images, the projections
into the blocks' residual streams, biases and gains. Cost of the rest: docs/experiments.md, 19.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from maximir.errors import MaximirError
from maximir.network.config import UNSHUFFLES, MaximConfig

SCALE = ".scale"
LARGEST = 127
CLIPS = (1.0, 0.97, 0.93, 0.88)
PROJECTION = ".project.weight"
OF_IMAGES = {MaximConfig(unshuffle=side).image_channels for side in UNSHUFFLES}


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors to store for finite float32 parameters on the CPU; float16 overflow becomes inf."""
    packed = {}
    for name, value in state.items():
        if value.ndim < 2 or not OF_IMAGES.isdisjoint(value.shape[:2]) or name.endswith(PROJECTION):
            packed[name] = value.half()
        else:
            packed[name], packed[name + SCALE] = quantise(value)
    return packed


def quantise(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers of the same shape, and one scale per row."""
    rows = value.flatten(1)
    largest = rows.abs().amax(dim=1) / LARGEST
    smallest = torch.finfo(torch.float16).smallest_normal  # for rows of zeros
    scales = torch.stack([(largest * clip).clamp_min(smallest).half() for clip in CLIPS])
    integers = (rows / scales.float()[..., None]).round().clamp(-LARGEST, LARGEST)
    errors = (integers * scales.float()[..., None] - rows).square().sum(dim=2)
    best = errors.argmin(dim=0)
    row = torch.arange(len(rows))
    return integers[best, row].to(torch.int8).view(value.shape), scales[best, row].contiguous()


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters, with packed ones as float32.

    Raises:
        MaximirError: a scale is missing or has a wrong shape or type.
    """
    unpacked = {}
    for name, value in state.items():
        if value.dtype == torch.int8:
            scale = state.get(name + SCALE)
            if scale is None or scale.shape != value.shape[:1] or not scale.is_floating_point():
                raise MaximirError(f"parameter {name} has no scale for each of its rows")
            unpacked[name] = value * scale.float().view(-1, *[1] * (value.ndim - 1))
        elif not name.endswith(SCALE) or name.removesuffix(SCALE) not in state:
            unpacked[name] = value
    return unpacked
