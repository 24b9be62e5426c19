"""Maps whose rows are made when they are needed, and the projections that they go through.

What is linear is merged: a projection of a concatenation is a sum of projections, and a linear map that is
projected is another linear map. So neither the concatenation nor the map in between is ever stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir.engine.streaming import Rows


def up_convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, bias, stride=2).permute(0, 2, 3, 1)


# Adds something to a sum, which is a bias [outputs] before there are rows; returns the sum of then.
Term = Callable[[Rows, Tensor], Tensor]


class Through(NamedTuple):
    """A source after a product."""

    term: Term
    bias: Tensor | float = 0.0  # to be added besides


def into(rows: Rows, shape: Sequence[int], device: torch.device) -> Tensor | None:
    """Where a sum of terms is collected: where it belongs, unless that is of half precision."""
    place = rows.out(shape, device)
    return place if place is None or place.dtype == torch.float32 else None


def added(rows: Rows, total: Tensor, x: Tensor) -> Tensor:
    return torch.add(total, x, out=into(rows, x.shape, x.device))


def linear_added(rows: Rows, total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The sum of `total` and x weightᵀ: one product that adds to what is there, if it may."""
    place = into(rows, (*x.shape[:-1], len(weight)), x.device)
    if (
        place is None
        or not place.is_contiguous()
        or x.dtype != place.dtype
        or (not x.is_meta and torch.is_autocast_enabled(x.device.type))
    ):
        return torch.add(total, F.linear(x, weight), out=place)
    tokens = place.view(-1, len(weight))
    torch.addmm(total if total.ndim == 1 else tokens, x.flatten(0, -2), weight.T, out=tokens)
    return place


class RowConv(Protocol):
    """A convolution that is given rows of a map with `halo` more on each side; see `network.layers.Conv`."""

    halo: int
    out_channels: int

    def __call__(self, x: Tensor, rows: Rows) -> Tensor: ...


class Source(Protocol):
    """A map whose rows are made when they are needed."""

    @property
    def channels(self) -> int: ...

    def through(self, weight: Tensor) -> Through:
        """A product of its rows with `weight` [outputs, channels]."""
        ...


@dataclass(frozen=True)
class Map:
    """A map that is there."""

    x: Tensor

    @property
    def channels(self) -> int:
        return self.x.shape[-1]

    def through(self, weight: Tensor) -> Through:
        return Through(lambda rows, total: linear_added(rows, total, rows.of(self.x), weight))


@dataclass(frozen=True)
class Convolved:
    """A convolution of an image."""

    conv: RowConv
    image: Tensor

    @property
    def channels(self) -> int:
        return self.conv.out_channels

    def through(self, weight: Tensor) -> Through:
        def term(rows: Rows, total: Tensor) -> Tensor:
            x = self.conv(rows.of(self.image, self.conv.halo), rows)
            return linear_added(rows, total, x, weight)

        return Through(term)


@dataclass(frozen=True)
class Upsampled:
    """A map of half the size, brought up: a linear map too, merged with the one that follows."""

    up: nn.ConvTranspose2d
    x: Tensor

    @property
    def channels(self) -> int:
        return self.up.out_channels

    def through(self, weight: Tensor) -> Through:
        assert self.up.bias is not None
        kernel = torch.einsum("iohw,po->iphw", self.up.weight, weight)
        return Through(
            lambda rows, total: added(rows, total, up_convolve(rows.of(self.x), kernel, None)),
            weight @ self.up.bias,
        )


def project(linear: nn.Linear, *sources: Source) -> Callable[[Rows], Tensor]:
    """Rows of linear(concat(sources)). Each goes through its own columns: nothing is concatenated."""
    weights = torch.split(linear.weight, [source.channels for source in sources], dim=1)
    terms = [source.through(weight) for source, weight in zip(sources, weights, strict=True)]
    term, bias = together(terms)
    bias = linear.bias + bias
    return lambda rows: term(rows, bias)


def together(parts: Sequence[Through]) -> Through:
    """The sum of all."""

    def term(rows: Rows, total: Tensor) -> Tensor:
        return functools.reduce(lambda total, part: part.term(rows, total), parts, total)

    return Through(term, functools.reduce(torch.add, [part.bias for part in parts]))
