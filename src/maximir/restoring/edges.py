"""Sizes between multiples of 64, without padding.

The official padding adds up to 63 reflected rows and columns, and the global grid mixes them into everything.
Where it would add 48 or more, the largest window of multiples of 64 and a strip of 64 along the far side have
as many pixels as the padded image, all of them the photograph's. docs/large-photographs.md has figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from maximir.network.config import SIZE_MULTIPLE, padded_size
from maximir.pixels import from_unit, to_unit
from maximir.restoring.options import Progress, share_progress

SMALLEST = 3 * SIZE_MULTIPLE  # of a window: smaller ones see too little
MOST_REST = 16  # rows or columns beyond a multiple of 64: more need a wider strip, and are padded less
FADE = 8  # rows or columns in which the strip takes over from the window

Restore = Callable[[Sequence[np.ndarray], Progress], list[np.ndarray]]  # `[h, w, 3]` → same shapes and types


def windows(length: int) -> list[tuple[int, int]]:
    """Return begin and end of each window of an axis: the large one, and perhaps the strip at the end."""
    rest = length % SIZE_MULTIPLE
    if length - rest < SMALLEST or not 0 < rest <= MOST_REST:
        return [(0, length)]
    return [(0, length - rest), (length - SIZE_MULTIPLE, length)]


def has_strips(height: int, width: int) -> bool:
    return len(windows(height)) + len(windows(width)) > 2


def parts(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield the windows of an image; the large one first."""
    for rows, columns in itertools.product(windows(height), windows(width)):
        yield slice(*rows), slice(*columns)


def restore_with_strips(images: Sequence[np.ndarray], restore: Restore, report: Progress) -> list[np.ndarray]:
    """Restore images `[H, W, 3]` of one size and any type window by window → the same shapes and types."""
    height, width = images[0].shape[:2]
    results = [np.zeros_like(image) for image in images]
    shares = [padded_pixels(rows, columns) for rows, columns in parts(height, width)]
    for number, (rows, columns) in enumerate(parts(height, width)):
        report_window = share_progress(report, number, shares)
        restored = restore([image[rows, columns] for image in images], report_window)
        for result, window in zip(results, restored, strict=True):
            place(result, window, rows, columns)
    return results


def padded_pixels(rows: slice, columns: slice) -> int:
    return padded_size(rows.stop - rows.start) * padded_size(columns.stop - columns.start)


def place(result: np.ndarray, restored: np.ndarray, rows: slice, columns: slice) -> None:
    """Put a window's result in place, faded into those of the windows before it."""
    if rows.start == columns.start == 0:
        result[rows, columns] = restored
        return
    height, width = result.shape[:2]
    down, across = blend_weights(rows, height), blend_weights(columns, width)
    top, left = int(np.argmax(down > 0)), int(np.argmax(across > 0))
    weight = (down[top:, None] * across[None, left:])[..., None]
    old = result[rows.start + top : rows.stop, columns.start + left : columns.stop]
    new = restored[top:, left:]
    mixed = to_unit(old) + weight * (to_unit(new) - to_unit(old))
    old[...] = np.where(weight < 1, from_unit(mixed, result.dtype), new)


def blend_weights(window: slice, length: int) -> np.ndarray:
    """Return the share of a window along its axis, `[n]` float32: it rises before its own part."""
    count = np.ones(window.stop - window.start, np.float32)
    if window.start > 0:
        begins = len(count) - length % SIZE_MULTIPLE  # from here on there is no other window
        count[: begins - FADE] = 0
        count[begins - FADE : begins] = np.linspace(0, 1, FADE + 2, dtype=np.float32)[1:-1]
    return count
