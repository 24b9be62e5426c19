"""Windows of tasks of detail: bounded memory for large photographs, and no padding for some sizes.

`multiple` is what the network takes, 64 or 128. An axis longer than `LARGEST` of them is covered by windows
of one size, a multiple, that overlap and fade into each other: the trained crops were far smaller, and
detail needs no more context. A shorter axis a little above a multiple gets the largest window of multiples,
and a strip along the far side: as many pixels as with the official padding, all of them the photograph's.
The padding adds reflected rows and columns, which the global grid mixes into everything.
docs/large-photographs.md has figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from maximir.network.config import SIZE_MULTIPLE, padded_size
from maximir.pixels import from_unit, to_unit
from maximir.restoring.options import Progress, share_progress

LARGEST = 20  # multiples: a longer axis is divided
OVERLAP = 64  # pixels of neighbours in a divided axis, at least
SMALLEST = 3  # multiples, of a window beside a strip: smaller ones see too little
MOST_REST = 16  # rows or columns beyond a multiple: more need a wider strip, and are padded less
FADE = 8  # rows or columns in which a strip takes over from its window
BAND = 64  # rows at a time
BLOCK = 16  # windows begin at multiples of it where they can: a JPEG's blocks stay where they were

Restore = Callable[[Sequence[np.ndarray], Progress], list[np.ndarray]]  # `[h, w, 3]` → same shapes and types


def windows(length: int, multiple: int = SIZE_MULTIPLE) -> list[tuple[int, int]]:
    """Return begin and end of each window of an axis."""
    if length > LARGEST * multiple:
        shared = OVERLAP + BLOCK  # less after rounding to blocks
        count = -(-(length - shared) // (LARGEST * multiple - shared))
        side = padded_size(-(-(length + (count - 1) * shared) // count), multiple)
        begins = [i * (length - side) // (count - 1) // BLOCK * BLOCK for i in range(count - 1)]
        return [(begin, begin + side) for begin in (*begins, length - side)]
    rest = length % multiple
    if length - rest < SMALLEST * multiple or not 0 < rest <= MOST_REST:
        return [(0, length)]
    return [(0, length - rest), (length - multiple, length)]


def several(height: int, width: int, multiple: int = SIZE_MULTIPLE) -> bool:
    return len(windows(height, multiple)) + len(windows(width, multiple)) > 2


def parts(height: int, width: int, multiple: int = SIZE_MULTIPLE) -> Iterator[tuple[slice, slice]]:
    """Yield the windows of an image, none of which is larger than the first."""
    for rows, columns in itertools.product(windows(height, multiple), windows(width, multiple)):
        yield slice(*rows), slice(*columns)


def restore_in_windows(
    images: Sequence[np.ndarray], restore: Restore, report: Progress, multiple: int = SIZE_MULTIPLE
) -> list[np.ndarray]:
    """Restore images `[H, W, 3]` of one size and any type window by window → the same shapes and types."""
    height, width = images[0].shape[:2]
    results = [np.zeros_like(image) for image in images]
    shares = [padded_pixels(*part, multiple) for part in parts(height, width, multiple)]
    for number, (rows, columns) in enumerate(parts(height, width, multiple)):
        report_window = share_progress(report, number, shares)
        restored = restore([image[rows, columns] for image in images], report_window)
        for result, window in zip(results, restored, strict=True):
            place(result, window, rows, columns, multiple)
    return results


def padded_pixels(rows: slice, columns: slice, multiple: int = SIZE_MULTIPLE) -> int:
    height, width = (padded_size(axis.stop - axis.start, multiple) for axis in (rows, columns))
    return height * width


def place(
    result: np.ndarray, restored: np.ndarray, rows: slice, columns: slice, multiple: int = SIZE_MULTIPLE
) -> None:
    """Put a window's result in place, faded into those of the windows before it."""
    if rows.start == columns.start == 0:
        result[rows, columns] = restored
        return
    down = blend_weights(rows, result.shape[0], multiple)
    across = blend_weights(columns, result.shape[1], multiple)
    top, left = int(np.argmax(down > 0)), int(np.argmax(across > 0))
    for first in range(top, len(down), BAND):  # in float, a whole window would need much memory
        band = slice(first, first + BAND)
        weight = (down[band, None] * across[None, left:])[..., None]
        old = result[rows, columns][band, left:]
        new = restored[band, left:]
        mixed = to_unit(old) + weight * (to_unit(new) - to_unit(old))
        old[...] = np.where(weight < 1, from_unit(mixed, result.dtype), new)


def blend_weights(window: slice, length: int, multiple: int = SIZE_MULTIPLE) -> np.ndarray:
    """Return the share of a window along its axis of this length, `[n]` float32.

    It rises from 0 to 1 in the middle half of the overlap with the window before it, since both see least at
    their borders; for a strip just before its own part, since it sees less than the window.
    """
    count = np.ones(window.stop - window.start, np.float32)
    if window.start > 0:
        every = windows(length, multiple)
        before = every[[begin for begin, _ in every].index(window.start) - 1]
        overlap = before[1] - window.start
        divided = length > LARGEST * multiple
        start, stop = (overlap // 4, overlap - overlap // 4) if divided else (overlap - FADE, overlap)
        count[:start] = 0
        count[start:stop] = np.linspace(0, 1, stop - start + 2, dtype=np.float32)[1:-1]
    return count
