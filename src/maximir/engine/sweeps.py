"""Sweeps over whole images in strips: nothing but feature maps is ever as large as the image.

Every operator of the network mixes along one axis only: Dense, LayerNorm and GELU not at all, a gated MLP
within one block or one grid, a convolution over its halo. So each block runs as sweeps: functions of a strip
and of the maps that it reads. Everything between lives for one strip only.

- `Pass.rows`: strips are bands of rows. A function takes its rows with `Rows.of`, halo included.
- `Pass.windows`: strips are some of the windows (blocks or grids) that a P x P matrix mixes, as tokens.

`Streaming` says how large strips are and where maps live, for any number of images; a `Pass` is one batch of
images on its way through the network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from maximir.engine.maps import MapStore
from maximir.network.layers import Axis, windows

Strip = TypeVar("Strip")

UNIT = 8  # rows at full size that every sweep advances by at least: one row of the bottleneck's maps
STRIP_BYTES = 4 << 20  # of a feature map, in one strip: small enough for a processor's last-level cache


@dataclass
class Streaming:
    """Settings of passes in strips.

    Attributes:
        strip_bytes: size of a strip of a feature map.
        features: type of the maps that wait between blocks, float32 or bfloat16, and of the products. The
            residual stream is float32 at all times.
        store: where maps live.
        strip_done: called after each strip with the number of strips of this sweep.
        kernels: use the native ones where they fit.
    """

    strip_bytes: int = STRIP_BYTES
    features: torch.dtype = torch.float32
    store: MapStore = field(default_factory=MapStore)
    strip_done: Callable[[int], None] = lambda strips: None
    kernels: bool = True

    def strips(self, strips: Sequence[Strip]) -> Iterator[Strip]:
        """Yield the strips of one sweep, one after the other."""
        for strip in strips:
            yield strip
            self.store.strip_done()
            self.strip_done(len(strips))


@dataclass(frozen=True)
class Rows:
    """A band of rows of the image: from `start` to `stop` of `total` equal parts, at any map's scale.

    Attributes:
        target: makes the place of a function's (first) result from its shape and device; see `out`.
    """

    start: int = 0
    stop: int = 1
    total: int = 1
    target: Callable[[Sequence[int], torch.device], Tensor] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def at_top(self) -> bool:
        return self.start == 0

    @property
    def at_bottom(self) -> bool:
        return self.stop == self.total

    def of(self, x: Tensor, halo: int = 0) -> Tensor:
        """Return these rows of a map [N, H, W, C], and `halo` more on each side that has any."""
        part = x.shape[1] // self.total
        strip = x[:, max(0, self.start * part - halo) : min(x.shape[1], self.stop * part + halo)]
        return strip.float() if strip.is_meta else strip  # autocast does not reach the meta device

    def out(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """Return the place of these rows in the function's (first) result, for its last operation to fill.

        Args:
            shape: of the rows.
        """
        return None if self.target is None else self.target(shape, device)

    def trim(self, x: Tensor, halo: int) -> Tensor:
        """Return `x` without the halo that `of` added."""
        return x[:, 0 if self.at_top else halo : x.shape[1] - (0 if self.at_bottom else halo)]


@dataclass(frozen=True)
class Pass:
    """A batch of images on its way through the network.

    Attributes:
        units: height of the images in units of `UNIT` rows.
    """

    streaming: Streaming
    units: int

    def dtype(self, feature: bool) -> torch.dtype:
        return self.streaming.features if feature else torch.float32

    def new(self, shape: Sequence[int], device: torch.device, *, feature: bool) -> Tensor:
        """Return an uninitialised map."""
        return self.streaming.store.new(shape, self.dtype(feature), device)

    def rest(self, *maps: Tensor) -> None:
        """Mark maps that are not needed for a while: where memory ends they go to scratch files first."""
        for x in maps:
            self.streaming.store.rest(x)

    def keep(self, x: Tensor) -> Tensor:
        """Return the map as a feature map; itself if it is one."""
        if x.dtype == self.streaming.features:
            return x
        return self.rows(lambda rows: rows.of(x), x.numel(), feature=True)

    def rows(
        self,
        function: Callable[[Rows], Tensor],
        size: int,
        into: Tensor | None = None,
        *,
        feature: bool = False,
    ) -> Tensor:
        """Return the map whose rows `function` makes.

        Args:
            size: number of values of the largest map in the function; decides the height of strips.
            into: a map to overwrite, which `function` reads only in the rows that it makes.
            feature: the map waits between blocks, and may be kept in half precision.
        """
        return self.rows_to_many(lambda rows: (function(rows),), size, [into], [feature])[0]

    def rows_to_many(
        self,
        function: Callable[[Rows], Sequence[Tensor]],
        size: int,
        into: Sequence[Tensor | None],
        feature: Sequence[bool],
    ) -> Sequence[Tensor]:
        """Return the maps whose rows `function` makes; see `rows`."""
        dtypes = [self.dtype(f) for f in feature]
        maps = [
            x if x is not None and x.dtype == dtype else None for x, dtype in zip(into, dtypes, strict=True)
        ]
        units = self.units
        height = max(1, min(units, self.streaming.strip_bytes * units // (4 * size)))
        strips = [(start, min(start + height, units)) for start in range(0, units, height)]

        def place_of(index: int, start: int, stop: int, shape: Sequence[int], device: torch.device) -> Tensor:
            whole = maps[index]
            if whole is None:
                tall = (shape[0], shape[1] * units // (stop - start), *shape[2:])
                whole = maps[index] = self.streaming.store.new(tall, dtypes[index], device)
            part = whole.shape[1] // units
            return whole[:, start * part : stop * part]

        for strip in self.streaming.strips(strips):
            rows = Rows(*strip, units, functools.partial(place_of, 0, *strip))
            for index, result in enumerate(function(rows)):
                place = place_of(index, *strip, result.shape, result.device)
                if (result.data_ptr(), result.stride()) != (
                    place.data_ptr(),
                    place.stride(),
                ):  # not yet there
                    place.copy_(result)
        return maps  # type: ignore[return-value]

    def windows(
        self,
        function: Callable[..., Sequence[Tensor]],
        maps: Sequence[Tensor],
        into: Sequence[Tensor | None],
        size: int,
        axis: Axis,
        *,
        feature: bool = False,
    ) -> Sequence[Tensor]:
        """Return the maps whose tokens `function` makes from those of `maps`, [P, M, C], M windows at a time.

        Args:
            into: maps to overwrite; they may be among `maps`.
            size, axis: the windows, see `network.layers.windows`.
            feature: see `rows`.
        """
        shape = maps[0].shape
        dtype = self.dtype(feature)
        targets = [
            target
            if target is not None and target.dtype == dtype
            else self.new(shape, maps[0].device, feature=feature)
            for target in into
        ]
        sources = [windows(x, size, axis) for x in maps]
        sinks = [windows(target, size, axis) for target in targets]
        count = self.streaming.strip_bytes // (4 * size * size * shape[-1])
        for tile in self.streaming.strips(tiles(sources[0].shape[2:5], count)):
            tokens = (x[:, :, *tile].reshape(size * size, -1, x.shape[-1]) for x in sources)
            for sink, result in zip(sinks, function(*tokens), strict=True):
                part = sink[:, :, *tile]
                part.copy_(result.view(part.shape))
        return targets


def tiles(shape: Sequence[int], count: int) -> list[tuple[slice, slice, slice]]:
    """Return boxes of about `count` cells that cover a box of `shape`, long in the last axes."""
    lengths = []
    for length in reversed(shape):
        lengths.append(max(1, min(length, count)))
        count //= length
    n, a, b = reversed(lengths)
    return [
        (slice(i, i + n), slice(j, j + a), slice(k, k + b))
        for i in range(0, shape[0], n)
        for j in range(0, shape[1], a)
        for k in range(0, shape[2], b)
    ]
