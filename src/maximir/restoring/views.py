"""Large photographs: the light from a small view of the whole, the detail from tiles at full size.

The models were trained on crops of 256 pixels. Their global grid has 16 x 16 cells whatever the size, so in a
large photograph a cell is larger than any that training has seen, and even areas show it: columns and rows in
skies (google-research/maxim, issue 37). Tiles of the trained size show no columns, but each guesses its own
light: seams. A small view of the whole, at a size like the training's, has neither. So its low frequencies
replace those of the tiles: result + enlarge(smooth(small result - shrink(result))); smooth, because a small
view sees small things, such as stars, in its own way. docs/large-photographs.md has the study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from maximir.pixels import UINT8, from_unit, to_unit
from maximir.restoring.filters import between, blur
from maximir.restoring.options import Progress

GLOBAL_TASKS = (
    "dehaze",
    "enhance",
    "retouch",
)  # these change the light of the whole; the others change detail alone
SMALL = 640  # pixels: longer side of the small view
LARGE = 1024  # pixels: longer side from which photographs are restored in views
TILE = 512  # pixels: side of a tile, a multiple of 64
OVERLAP = 64  # pixels in which neighbours fade into each other
SMOOTH = 4.0  # pixels of the small view: sigma
BAND = 64  # rows at a time

NOTE = f"light from a view of {SMALL} pixels, detail in tiles of {TILE}; --view exact: the whole at once"

Restore = Callable[[np.ndarray], np.ndarray]  # [h, w, 3] of any type → float32, not clipped


def is_large(height: int, width: int) -> bool:
    return max(height, width) >= LARGE


def small_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the small view."""
    scale = SMALL / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def tiles(length: int) -> list[int]:
    """Return the starts of tiles on an axis: evenly spaced, overlapping by at least `OVERLAP`."""
    if length <= TILE:
        return [0]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    return [round(i * (length - TILE) / (count - 1)) for i in range(count)]


def pieces(height: int, width: int) -> int:
    """Return the number of tiles."""
    return len(tiles(height)) * len(tiles(width))


def restore_in_views(image: np.ndarray, restore: Restore, report: Progress) -> np.ndarray:
    """Restore a large photograph; holds two results, one row of tiles and the small view.

    Args:
        image: `[H, W, 3]`; integers, or floating in [0, 1].
        restore: restores a tile or the small view.
        report: called with the part that is done, 0 … 1.

    Returns:
        The same shape and type. Floats are not clipped.
    """
    height, width = image.shape[:2]
    h, w = small_size(height, width)
    count = pieces(height, width)
    share = h * w / (h * w + count * TILE**2)
    small = restore(shrink(image, h, w))
    report(share)
    # Not clipped before the light is right. Half floats are four times as fine as 8 bits.
    detail = np.empty(image.shape, np.float16 if image.dtype == UINT8 else np.float32)
    for row, band in tiled(image, restore, lambda done: report(share + (1 - share) * done / count)):
        detail[row : row + len(band)] = band
    result = correct(detail, blur(small - shrink(detail, h, w), SMOOTH), image.dtype)
    report(1.0)
    return result


def tiled(
    image: np.ndarray, restore: Restore, count: Callable[[int], None]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first row and rows, `[n, W, 3]` float32, of the joined tiles, from top to bottom."""
    height, width = image.shape[:2]
    rows, columns = tiles(height), tiles(width)
    above: np.ndarray | None = None  # the part of the row of tiles above that this one fades into
    number = 0
    for i, top in enumerate(rows):
        bottom = min(top + TILE, height)
        strip = np.zeros((bottom - top, width, 3), np.float32)
        for j, left in enumerate(columns):
            right = min(left + TILE, width)
            tile = restore(image[top:bottom, left:right])
            faded = columns[j - 1] + TILE - left if j else 0  # columns that the tile before has too
            ramp = rise(faded)[None, :, None]
            strip[:, left : left + faded] *= 1 - ramp
            strip[:, left : left + faded] += ramp * tile[:, :faded]
            strip[:, left + faded : right] = tile[:, faded:]
            number += 1
            count(number)
        if above is not None:
            ramp = rise(len(above))[:, None, None]
            strip[: len(above)] = above + ramp * (strip[: len(above)] - above)
        ready = (rows[i + 1] if i + 1 < len(rows) else height) - top
        yield top, strip[:ready]
        above = strip[ready:].copy()


def rise(length: int) -> np.ndarray:
    """Return weights between 0 and 1, rising: the share of the tile that begins here."""
    return (np.arange(length, dtype=np.float32) + 1) / np.float32(length + 1)


def shrink(image: np.ndarray, h: int, w: int) -> np.ndarray:
    """Average areas of `[H, W, 3]`, any type, to float32 `[h, w, 3]`, a few rows at a time."""
    height = len(image)
    rows = []
    for i in range(h):
        first, last = i * height // h, -(-(i + 1) * height // h)
        mean = to_unit(image[first:last]).mean(axis=0, dtype=np.float32)  # [W, 3]
        rows.append(F.adaptive_avg_pool1d(torch.from_numpy(mean.T.copy()), w).T.numpy())
    return np.stack(rows)


def correct(image: np.ndarray, difference: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Add `difference`, `[h, w, 3]` float32, enlarged smoothly, to `image` `[H, W, 3]`; as `dtype`."""
    result = np.empty(image.shape, dtype)
    height, width = image.shape[:2]
    wide = F.interpolate(
        torch.from_numpy(difference).permute(2, 0, 1)[None], size=(len(difference), width), mode="bilinear",
        align_corners=False,
    )[0].permute(1, 2, 0).numpy()  # fmt: skip
    above, below, part = between(slice(0, height), height, len(wide))
    part = part[:, None, None]
    for row in range(0, height, BAND):
        band = slice(row, min(row + BAND, height))
        light = wide[above[band]] * (1 - part[band]) + wide[below[band]] * part[band]
        result[band] = from_unit(to_unit(image[band]) + light, dtype)
    return result
