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

from maximir.engine import native
from maximir.engine.sweeps import Pass, Rows
from maximir.network.layers import Conv, ConvTranspose, ImageConv, ScaleTo, exactly
from maximir.network.model import MultiScaleFusion
from maximir.ops import functional as ops

HALO = 1  # rows that a convolution reads beyond its own


class Projected(NamedTuple):
    """A source after a projection.

    Attributes:
        add_rows: adds these rows to a total, which is a bias [outputs] before there are rows, and returns it.
        terms: the same rows as terms of a native projection.
        maps: that the terms are made from.
        bias: to be added besides.
    """

    add_rows: Callable[[Rows, Tensor], Tensor]
    terms: Callable[[Rows], Sequence[native.Term]]
    maps: Sequence[Tensor]
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
        return product(weight, lambda rows: rows.of(self.x), [self.x])

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
        return product(weight, lambda rows: convolve_rows(self.conv, self.image, rows).contiguous(), [])

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
        taps = kernel.permute(2, 3, 1, 0).contiguous()

        def terms(rows: Rows) -> Sequence[native.Term]:
            return [native.Term(native.Kind.TRANSPOSED, rows.of(self.x), taps)]

        def add_rows(rows: Rows, total: Tensor) -> Tensor:
            planes = F.conv_transpose2d(rows.of(self.x).permute(0, 3, 1, 2), kernel, stride=2)
            return add(rows, total, planes.permute(0, 2, 3, 1))

        return Projected(add_rows, terms, [self.x], weight @ self.up.bias)

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


def project(
    run: Pass, linear: nn.Linear, *sources: Source, size: int, feature: bool = False, keep: bool = False
) -> tuple[Tensor, Tensor]:
    """Return linear(concat(sources)), for which each source goes through its own columns.

    Args:
        size: number of values of the result.
        feature: see `Pass.rows`.
        keep: return the result as a feature map too.
    """
    with exactly(linear.weight):  # the merged weights
        weights = torch.split(linear.weight, [source.channels for source in sources], dim=1)
        parts = [source.project(weight) for source, weight in zip(sources, weights, strict=True)]
        together = add_together(parts)
        total = linear.bias + together.bias
    if not native.projects(total, together.maps):
        x = run.rows(lambda rows: together.add_rows(rows, total), size, feature=feature)
        return x, run.keep(x) if keep else x
    copy: Tensor | None = None

    def project_rows(rows: Rows) -> Tensor:
        nonlocal copy
        terms = together.terms(rows)
        n, height, width = next(term.size for term in terms if term.kind != native.Kind.ENLARGED)
        shape = (n, height, width, len(total))
        out = rows.out(shape, total.device)
        assert out is not None
        if keep and copy is None and run.dtype(True) != out.dtype:
            whole = (n, height * rows.total // (rows.stop - rows.start), *shape[2:])
            copy = run.new(whole, total.device, feature=True)
        return native.project(terms, total, out, None if copy is None else rows.of(copy))

    x = run.rows(project_rows, size // native.STRIPS_AT_ONCE, feature=feature)
    return x, x if copy is None else copy


def add_together(parts: Sequence[Projected]) -> Projected:
    def add_rows(rows: Rows, total: Tensor) -> Tensor:
        return functools.reduce(lambda total, part: part.add_rows(rows, total), parts, total)

    def terms(rows: Rows) -> Sequence[native.Term]:
        return [term for part in parts for term in part.terms(rows)]

    maps = [x for part in parts for x in part.maps]
    return Projected(add_rows, terms, maps, functools.reduce(torch.add, [part.bias for part in parts]))


def product(
    weight: Tensor, make_rows: Callable[[Rows], Tensor], maps: Sequence[Tensor], bias: Tensor | float = 0.0
) -> Projected:
    """Project rows with `weight`."""
    weight = weight.contiguous()

    def add_rows(rows: Rows, total: Tensor) -> Tensor:
        return add_product(rows, total, make_rows(rows), weight)

    def terms(rows: Rows) -> Sequence[native.Term]:
        return [native.Term(native.Kind.PRODUCT, make_rows(rows), weight)]

    return Projected(add_rows, terms, maps, bias)


def project_scaled(scale: ScaleTo, x: Tensor, weight: Tensor) -> Projected:
    """Project `scale(x)` with `weight`, from the whole map `x`: both projections in one product."""
    bias = weight @ scale.project.bias
    weight = (weight @ scale.project.weight).contiguous()
    if scale.ratio == 1:
        return product(weight, lambda rows: rows.of(x), [x], bias)
    # A resize reaches as far as one row of the smaller map: 2 taps up, 2 / ratio taps down.
    halo = 1 if scale.ratio > 1 else round(1 / scale.ratio)

    def add_rows(rows: Rows, total: Tensor) -> Tensor:
        strip = rows.of(x, halo)
        if scale.ratio > 1:
            resized = scale.resize(F.linear(strip, weight))
            return add(rows, total, rows.trim(resized, round(halo * scale.ratio)))
        resized = rows.trim(scale.resize(strip), round(halo * scale.ratio))
        return add_product(rows, total, resized, weight)

    def terms(rows: Rows) -> Sequence[native.Term]:
        strip, above = rows.of(x, halo), 0 if rows.at_top else halo
        if scale.ratio < 1:
            resized = native.shrink(strip, rows.of(x).shape[1] // halo, halo, above)
            return [native.Term(native.Kind.PRODUCT, resized, weight)]
        small = strip.new_empty(*strip.shape[:3], len(weight))
        native.project(
            [native.Term(native.Kind.PRODUCT, strip, weight)], weight.new_zeros(len(weight)), small
        )
        return [native.Term(native.Kind.ENLARGED, small, factor=round(scale.ratio), above=above)]

    return Projected(add_rows, terms, [x], bias)


def convolve_rows(conv: Conv, x: Tensor, rows: Rows, *, last: bool = False) -> Tensor:
    """Convolve these rows of a map.

    Args:
        last: this makes the result of the sweep, so it may be written where it belongs.
    """
    return convolve_strip(conv, rows.of(x, HALO), rows, last=last)


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
        strip = strip.to(conv.weight.dtype).contiguous()
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
