"""Whole images, exactly, in strips: nothing but feature maps is ever as large as the image.

Every operator of the network mixes along one axis only: Dense, LayerNorm and GELU not at all, a gated MLP
within one block or one grid, a convolution over its halo. So each layer is written as a *sweep*: a function
of a strip, and the maps that it reads. What the function makes in between lives for one strip only.

- `sweep_rows`: strips are bands of rows. A function takes what it needs with `Rows.of`, halo included.
- `sweep_windows`: strips are some of the windows (blocks or grids) that a P x P matrix mixes, as tokens.

While gradients are recorded, and outside of `Maxim.forward`, the whole image is one strip, and the sweeps are
plain calls. Otherwise a `Streaming` says how large strips are and where maps live.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from maximir.engine.maps import MapStore

Axis = Literal["block", "grid"]
Strip = TypeVar("Strip")

UNIT = 8  # rows at full size that every sweep advances by at least: one row of the bottleneck's maps
STRIP_BYTES = 4 << 20  # of a feature map, in one strip: small enough for a processor's last-level cache


@dataclass
class Streaming:
    """How images go through the network in strips.

    Attributes:
        strip_bytes: size of a strip of a feature map; None: the whole image is one strip.
        features: type of the maps that wait between blocks. The residual stream is float32 at all times.
        store: where maps live.
        strip_done: called after each strip with the strips of this sweep.
        kernels: use the native ones where they fit; see `maximir.engine.kernels`.
        dry: on the meta device: allocate all maps, but do one strip of each sweep. Tells what a pass needs.
    """

    strip_bytes: int | None = STRIP_BYTES
    features: torch.dtype = torch.float32
    store: MapStore = field(default_factory=MapStore)
    strip_done: Callable[[int], None] = lambda strips: None
    kernels: bool = True
    dry: bool = False

    def dtype(self, feature: bool) -> torch.dtype:
        return self.features if feature else torch.float32

    def strips(self, strips: Sequence[Strip]) -> Iterator[Strip]:
        """The strips of one sweep, one after the other."""
        for strip in strips:
            yield strip
            self.store.strip_done()
            self.strip_done(len(strips))
            if self.dry:
                break


_chosen: contextvars.ContextVar[Streaming | None] = contextvars.ContextVar("chosen", default=None)
_active: contextvars.ContextVar[tuple[Streaming, int] | None] = contextvars.ContextVar("active", default=None)


def chosen() -> Streaming:
    """How networks that are called in this context stream."""
    return _chosen.get() or Streaming()


@contextlib.contextmanager
def use(streaming: Streaming) -> Iterator[None]:
    """Networks called in this context stream like that."""
    token = _chosen.set(streaming)
    try:
        yield
    finally:
        _chosen.reset(token)


@contextlib.contextmanager
def image(height: int, *, strips: bool = True) -> Iterator[None]:
    """Sweeps in this context are over an image of this height, in strips unless gradients are recorded."""
    streaming = chosen()
    whole = not strips or torch.is_grad_enabled() or streaming.strip_bytes is None
    token = _active.set(None if whole else (streaming, height // UNIT))
    try:
        with streaming.store.reuse():
            yield
    finally:
        _active.reset(token)


def active() -> Streaming | None:
    """The streaming in force; None: the whole image is one strip."""
    running = _active.get()
    return None if running is None else running[0]


@dataclass(frozen=True)
class Rows:
    """A band of rows of the image: from `start` to `stop` of `total` equal parts, at any map's scale.

    Attributes:
        target: where a function's (first) result belongs, from its shape and device; see `out`.
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
        """These rows of a map [N, H, W, C], and `halo` more of its rows on each side that has any."""
        strip = x
        if self.total > 1:
            part = x.shape[1] // self.total
            strip = x[:, max(0, self.start * part - halo) : min(x.shape[1], self.stop * part + halo)]
        return strip.float() if strip.is_meta else strip  # autocast does not reach the meta device

    def out(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """These rows of the map that a function makes, for its last operation to write there at once.

        None: there is none, because the whole image is one strip; gradients may be recorded.

        Args:
            shape: of the function's (first) result.
        """
        return None if self.target is None else self.target(shape, device)

    def trim(self, x: Tensor, halo: int) -> Tensor:
        """`x` without the halo that `of` added."""
        if self.total == 1:  # not even a slice: none is left in an exported graph
            return x
        return x[:, 0 if self.at_top else halo : x.shape[1] - (0 if self.at_bottom else halo)]


def sweep_rows(
    function: Callable[[Rows], Tensor], size: int, into: Tensor | None = None, *, feature: bool = False
) -> Tensor:
    """The map whose rows `function` makes.

    Args:
        size: number of values of the largest map in the function; decides the height of strips.
        into: a map to overwrite, which `function` reads only in the rows that it makes.
        feature: a map that waits between blocks, and may be kept in half precision.
    """
    return sweep_rows_to_many(lambda rows: (function(rows),), size, [into], [feature])[0]


def sweep_rows_to_many(
    function: Callable[[Rows], Sequence[Tensor]],
    size: int,
    into: Sequence[Tensor | None],
    feature: Sequence[bool],
) -> Sequence[Tensor]:
    """The maps whose rows `function` makes; see `sweep_rows`."""
    running = _active.get()
    if running is None:
        return function(Rows())
    streaming, units = running
    assert streaming.strip_bytes is not None
    dtypes = [streaming.dtype(f) for f in feature]
    maps = [x if x is not None and x.dtype == dtype else None for x, dtype in zip(into, dtypes, strict=True)]
    height = max(1, min(units, streaming.strip_bytes * units // (4 * size)))
    strips = [(start, min(start + height, units)) for start in range(0, units, height)]

    def place_of(index: int, start: int, stop: int, shape: Sequence[int], device: torch.device) -> Tensor:
        whole = maps[index]
        if whole is None:
            tall = (shape[0], shape[1] * units // (stop - start), *shape[2:])
            whole = maps[index] = streaming.store.new(tall, dtypes[index], device)
        part = whole.shape[1] // units
        return whole[:, start * part : stop * part]

    for strip in streaming.strips(strips):
        rows = Rows(*strip, units, functools.partial(place_of, 0, *strip))
        for index, result in enumerate(function(rows)):
            place = place_of(index, *strip, result.shape, result.device)
            if (result.data_ptr(), result.stride()) != (place.data_ptr(), place.stride()):  # not there yet
                place.copy_(result)
    return maps  # type: ignore[return-value]


def keep(x: Tensor) -> Tensor:
    """A map that has to wait, as a feature map."""
    running = active()
    if running is None or x.dtype == running.features:
        return x
    return sweep_rows(lambda rows: rows.of(x), x.numel(), feature=True)


def rest(*maps: Tensor) -> None:
    """These maps are not needed for a while: where memory ends, they are the first to go to scratch files."""
    if running := active():
        for x in maps:
            running.store.rest(x)


def windows(x: Tensor, size: int, axis: Axis) -> Tensor:
    """A view [s, s, N, A, B, C] of [N, H, W, C]: position in the window first, then its number.

    A window is s x s neighbours ("block"), or the s x s pixels H/s rows and W/s columns apart ("grid").
    """
    n, h, w, c = x.shape
    if axis == "block":
        return x.view(n, h // size, size, w // size, size, c).permute(2, 4, 0, 1, 3, 5)
    return x.view(n, size, h // size, size, w // size, c).permute(1, 3, 0, 2, 4, 5)


def from_windows(tokens: Tensor, shape: Sequence[int], size: int, axis: Axis) -> Tensor:
    """Tokens [P, M, C] of all windows of an image of `shape` [N, H, W, ...] → that image."""
    n, h, w = shape[:3]
    c = tokens.shape[-1]
    x = tokens.reshape(size, size, n, h // size, w // size, c)
    x = x.permute(2, 3, 0, 4, 1, 5) if axis == "block" else x.permute(2, 0, 3, 1, 4, 5)
    return x.reshape(n, h, w, c)


def sweep_windows(
    function: Callable[..., Sequence[Tensor]],
    maps: Sequence[Tensor],
    into: Sequence[Tensor | None],
    size: int,
    axis: Axis,
    *,
    feature: bool = False,
) -> Sequence[Tensor]:
    """The maps whose tokens `function` makes from the tokens of `maps`, [P, M, C] each, M windows at a time.

    Args:
        into: maps to overwrite; they may be among `maps`.
        size, axis: the windows, see `windows`.
        feature: see `sweep_rows`.
    """
    shape = maps[0].shape
    running = _active.get()
    if running is None:
        count = shape[0] * (shape[1] // size) * (shape[2] // size)
        results = function(*(windows(x, size, axis).reshape(size * size, count, x.shape[-1]) for x in maps))
        return [from_windows(result, shape, size, axis) for result in results]
    streaming, _ = running
    assert streaming.strip_bytes is not None
    dtype = streaming.dtype(feature)
    targets = [
        target
        if target is not None and target.dtype == dtype
        else streaming.store.new(shape, dtype, maps[0].device)
        for target in into
    ]
    sources = [windows(x, size, axis) for x in maps]
    sinks = [windows(target, size, axis) for target in targets]
    count = streaming.strip_bytes // (4 * size * size * shape[-1])
    for tile in streaming.strips(tiles(sources[0].shape[2:5], count)):
        tokens = (x[:, :, *tile].reshape(size * size, -1, x.shape[-1]) for x in sources)
        for sink, result in zip(sinks, function(*tokens), strict=True):
            part = sink[:, :, *tile]
            part.copy_(result.view(part.shape))
    return targets


def half(parameter: Tensor, axis: Axis, dim: int) -> Tensor:
    """One axis' half of a projection: the first belongs to the grid, the second to the blocks."""
    return parameter.chunk(2, dim)[0 if axis == "grid" else 1]


def tiles(shape: Sequence[int], count: int) -> list[tuple[slice, slice, slice]]:
    """Boxes of about `count` cells that cover a box of `shape`, long in the last axes."""
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
