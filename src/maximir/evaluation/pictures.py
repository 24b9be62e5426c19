"""Pictures of a score: degraded, restored, original and error."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

WIDTH = 280  # pixels of a panel
DETAIL = 140  # pixels of the image that the second row magnifies
BLOCK = 32  # pixels; the worst block is at the centre of the detail
FULL_ERROR = 48  # levels of 255 shown in the brightest colour of an error map
HEAT = ((0, 0, 8), (60, 15, 110), (170, 45, 95), (240, 110, 40), (255, 240, 160))  # from 0 to FULL_ERROR


def strip(degraded: np.ndarray | None, restored: np.ndarray, target: np.ndarray) -> bytes:
    """Draw a WebP with the columns degraded, restored, target, error: the whole image above, and below the
    magnified region with the largest error.

    Args:
        degraded: black if None.
        restored, target: uint8 [H, W, 3].
    """
    panels = [np.zeros_like(target) if degraded is None else degraded, restored, target]
    difference = differences(restored, target)
    y, x = worst_place(difference)
    rows, columns = (slice(at, at + DETAIL) for at in (y, x))
    whole = [*map(fit, panels), heat(fit(difference))]
    magnified = [*(zoom(panel[rows, columns]) for panel in panels), zoom(heat(difference[rows, columns]))]
    file = io.BytesIO()
    picture = np.concatenate([np.concatenate(row, axis=1) for row in (whole, magnified)])
    Image.fromarray(picture).save(file, "WEBP", quality=80)
    return file.getvalue()


def differences(restored: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the absolute difference, mean over channels: uint8 [H, W, 3] → float32 [H, W]."""
    total = np.zeros(target.shape[:2], np.float32)
    for c in range(3):
        total += np.abs(restored[..., c].astype(np.int16) - target[..., c])
    return total / 3


def fit(panel: np.ndarray) -> np.ndarray:
    """Resize [H, W] or [H, W, 3] to a panel's width, or a very tall image to twice that height."""
    h, w = panel.shape[:2]
    scale = min(WIDTH / w, 2 * WIDTH / h)
    height, width = max(1, round(h * scale)), max(1, round(w * scale))
    image = Image.fromarray(panel).resize((width, height), Image.Resampling.BOX)
    framed = np.zeros((height, WIDTH, *panel.shape[2:]), panel.dtype)
    framed[:, :width] = np.asarray(image)
    return framed


def heat(difference: np.ndarray) -> np.ndarray:
    """Colour an error map: absolute differences in levels of 255, [H, W] → uint8 [H, W, 3]."""
    steps = np.linspace(0, FULL_ERROR, len(HEAT))
    channels = [np.interp(difference, steps, [colour[c] for colour in HEAT]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def worst_place(difference: np.ndarray) -> tuple[int, int]:
    """Return first row and column of the detail: the worst block is at its centre if possible."""
    h, w = difference.shape
    rows, columns = np.arange(0, h, BLOCK), np.arange(0, w, BLOCK)
    sums = np.add.reduceat(np.add.reduceat(difference, rows, axis=0), columns, axis=1)
    y, x = np.unravel_index(np.argmax(sums), sums.shape)
    centre = (int(y) * BLOCK + BLOCK // 2, int(x) * BLOCK + BLOCK // 2)
    top, left = (
        min(max(0, at - DETAIL // 2), max(0, n - DETAIL)) for at, n in zip(centre, (h, w), strict=True)
    )
    return top, left


def zoom(panel: np.ndarray) -> np.ndarray:
    """Magnify a panel, pixels as squares; black beyond a small image."""
    framed = np.zeros((DETAIL, DETAIL, 3), np.uint8)
    framed[: panel.shape[0], : panel.shape[1]] = panel
    return np.kron(framed, np.ones((WIDTH // DETAIL, WIDTH // DETAIL, 1), np.uint8))
