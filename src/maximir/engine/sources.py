"""Maps whose rows are made when they are needed, and the projections that they go through.

What is linear is merged: a projection of a concatenation is a sum of projections, and a linear map that is
projected is another linear map. So neither the concatenation nor the map in between is ever stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir.engine.streaming import Rows


def up_convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, bias, stride=2).permute(0, 2, 3, 1)


class RowConv(Protocol):
    """A convolution that is given rows of a map with `halo` more on each side; see `network.layers.Conv`."""

    halo: int
    out_channels: int

    def __call__(self, x: Tensor, rows: Rows) -> Tensor: ...


class Source(Protocol):
    """A map whose rows are made when they are needed."""

    @property
    def channels(self) -> int: ...

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        """Its rows after a product with `weight` [outputs, channels]."""
        ...


@dataclass(frozen=True)
class Map:
    """A map that is there."""

    x: Tensor

    @property
    def channels(self) -> int:
        return self.x.shape[-1]

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        return lambda rows: F.linear(rows.of(self.x), weight)


@dataclass(frozen=True)
class Convolved:
    """A convolution of an image."""

    conv: RowConv
    image: Tensor

    @property
    def channels(self) -> int:
        return self.conv.out_channels

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        return lambda rows: F.linear(self.conv(rows.of(self.image, self.conv.halo), rows), weight)


@dataclass(frozen=True)
class Upsampled:
    """A map of half the size, brought up: a linear map too, merged with the one that follows."""

    up: nn.ConvTranspose2d
    x: Tensor

    @property
    def channels(self) -> int:
        return self.up.out_channels

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        assert self.up.bias is not None
        kernel = torch.einsum("iohw,po->iphw", self.up.weight, weight)
        bias = weight @ self.up.bias
        return lambda rows: up_convolve(rows.of(self.x), kernel, bias)


def project(linear: nn.Linear, *sources: Source) -> Callable[[Rows], Tensor]:
    """Rows of linear(concat(sources)). Each goes through its own columns: nothing is concatenated."""
    weights = torch.split(linear.weight, [source.channels for source in sources], dim=1)
    terms = [source.through(weight) for source, weight in zip(sources, weights, strict=True)]

    def rows_of(rows: Rows) -> Tensor:
        return functools.reduce(torch.add, [linear.bias, *(term(rows) for term in terms)])

    return rows_of
