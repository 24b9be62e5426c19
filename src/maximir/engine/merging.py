"""Projections of maps whose rows are made when they are needed.

Linear maps that follow each other are one: a projection of a concatenation is a sum of projections, and a
projected linear map is another linear map. So neither the concatenation nor the map between is stored.
A `Source` stands for such a map; `project` sends sources through a 1 x 1 projection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir.engine.sweeps import Rows
from maximir.network.layers import Conv, ConvTranspose, ImageConv, ScaleTo, exactly
from maximir.network.model import MultiScaleFusion
from maximir.ops import functional as ops

HALO = 1  # rows that a convolution reads beyond its own


class Projected(NamedTuple):
    """A source after a projection.

    Attributes:
        add_rows: adds these rows to a total, which is a bias [outputs] before there are rows, and returns it.
        bias: to be added besides.
    """

    add_rows: Callable[[Rows, Tensor], Tensor]
    bias: Tensor | float = 0.0


class Source(Protocol):
    """A map whose rows are made when they are needed."""

    @property
    def channels(self) -> int: ...

    def project(self, weight: Tensor) -> Projected:
        """Project its rows with `weight` [outputs, channels]."""
        ...

    def whole(self) -> Tensor:
        """Make all of the map, for a module that the engine does not know."""
        ...


@dataclass(frozen=True)
class Map:
    """A map that exists."""

    x: Tensor

    @property
    def channels(self) -> int:
        return self.x.shape[-1]

    def project(self, weight: Tensor) -> Projected:
        return Projected(lambda rows, total: add_product(rows, total, rows.of(self.x), weight))

    def whole(self) -> Tensor:
        return self.x


@dataclass(frozen=True)
class Convolved:
    """A convolution of an image."""

    conv: Conv
    image: Tensor

    @property
    def channels(self) -> int:
        return self.conv.out_channels

    def project(self, weight: Tensor) -> Projected:
        return Projected(
            lambda rows, total: add_product(rows, total, convolve_rows(self.conv, self.image, rows), weight)
        )

    def whole(self) -> Tensor:
        result: Tensor = self.conv(self.image)
        return result


@dataclass(frozen=True)
class Upsampled:
    """A map of half the size, brought up by a transposed convolution."""

    up: ConvTranspose
    x: Tensor

    @property
    def channels(self) -> int:
        return self.up.out_channels

    def project(self, weight: Tensor) -> Projected:
        assert self.up.bias is not None
        kernel = torch.einsum("iohw,po->iphw", self.up.weight, weight)

        def add_rows(rows: Rows, total: Tensor) -> Tensor:
            planes = F.conv_transpose2d(rows.of(self.x).permute(0, 3, 1, 2), kernel, stride=2)
            return add(rows, total, planes.permute(0, 2, 3, 1))

        return Projected(add_rows, weight @ self.up.bias)

    def whole(self) -> Tensor:
        result: Tensor = self.up(self.x)
        return result


@dataclass(frozen=True)
class Fused:
    """A fusion of the maps of all levels."""

    fusion: MultiScaleFusion
    by_level: Sequence[Tensor]

    @property
    def channels(self) -> int:
        return sum(scale.project.out_features for scale in self.fusion.scales)

    def project(self, weight: Tensor) -> Projected:
        parts = weight.chunk(len(self.fusion.order), dim=1)
        return add_together(
            [
                project_scaled(scale, self.by_level[source], part)
                for source, scale, part in zip(self.fusion.order, self.fusion.scales, parts, strict=True)
            ]
        )

    def whole(self) -> Tensor:
        result: Tensor = self.fusion(self.by_level)
        return result


def project(linear: nn.Linear, *sources: Source) -> Callable[[Rows], Tensor]:
    """Return rows of linear(concat(sources)) as a function: each source goes through its own columns."""
    weights = torch.split(linear.weight, [source.channels for source in sources], dim=1)
    parts = [source.project(weight) for source, weight in zip(sources, weights, strict=True)]
    add_rows, bias = add_together(parts)
    total = linear.bias + bias
    return lambda rows: add_rows(rows, total)


def add_together(parts: Sequence[Projected]) -> Projected:
    def add_rows(rows: Rows, total: Tensor) -> Tensor:
        return functools.reduce(lambda total, part: part.add_rows(rows, total), parts, total)

    return Projected(add_rows, functools.reduce(torch.add, [part.bias for part in parts]))


def project_scaled(scale: ScaleTo, x: Tensor, weight: Tensor) -> Projected:
    """Project `scale(x)` with `weight`, from the whole map `x`: both projections in one product."""
    bias = weight @ scale.project.bias
    weight = weight @ scale.project.weight
    if scale.ratio == 1:
        return Projected(lambda rows, total: add_product(rows, total, rows.of(x), weight), bias)
    # A resize reaches as far as one row of the smaller map: 2 taps up, 2 / ratio taps down.
    halo = 1 if scale.ratio > 1 else round(1 / scale.ratio)

    def add_rows(rows: Rows, total: Tensor) -> Tensor:
        strip = rows.of(x, halo)
        if scale.ratio > 1:
            resized = scale.resize(F.linear(strip, weight))
            return add(rows, total, rows.trim(resized, round(halo * scale.ratio)))
        resized = rows.trim(scale.resize(strip), round(halo * scale.ratio))
        return add_product(rows, total, resized, weight)

    return Projected(add_rows, bias)


def convolve_rows(
    conv: Conv, x: Tensor, rows: Rows, *, negative_slope: float | None = None, last: bool = False
) -> Tensor:
    """Convolve these rows of a map.

    Args:
        negative_slope: see `ops.functional.convolve`.
        last: this makes the result of the sweep, so it may be written where it belongs.
    """
    return convolve_strip(conv, rows.of(x, HALO), rows, negative_slope=negative_slope, last=last)


def convolve_strip(
    conv: Conv, strip: Tensor, rows: Rows, *, negative_slope: float | None = None, last: bool = False
) -> Tensor:
    """Convolve rows that bring their neighbours along: padding comes only where the image ends."""
    ends = {"top": rows.at_top, "bottom": rows.at_bottom}
    out = None
    if last and conv.stride == (1, 1):
        height = strip.shape[1] - 2 * HALO + HALO * (rows.at_top + rows.at_bottom)
        out = rows.out((strip.shape[0], height, strip.shape[2], conv.out_channels), strip.device)
    if not isinstance(conv, ImageConv):
        return ops.convolve(conv, strip, negative_slope=negative_slope, out=out, **ends)
    with exactly(strip):
        strip = strip.to(conv.weight.dtype)
        return ops.convolve(conv, strip, negative_slope=negative_slope, out=out, **ends)


def add(rows: Rows, total: Tensor, x: Tensor) -> Tensor:
    return torch.add(total, x, out=sum_place(rows, x.shape, x.device))


def add_product(rows: Rows, total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return `total` + x weightᵀ: one product that adds to what is there, if it may."""
    place = sum_place(rows, (*x.shape[:-1], len(weight)), x.device)
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


def sum_place(rows: Rows, shape: Sequence[int], device: torch.device) -> Tensor | None:
    """Return the place where a sum is collected: the result's, unless that is of half precision."""
    place = rows.out(shape, device)
    return place if place is None or place.dtype == torch.float32 else None
