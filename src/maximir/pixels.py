"""Conversion of pixel values: integers of a full scale ↔ floats in [0, 1]."""

from __future__ import annotations

import numpy as np

from maximir.errors import MaximirError

UINT8 = np.dtype(np.uint8)
BAND = 64  # rows at a time
FLOAT_LIMIT = 8.0  # noise may leave [0, 1]; values far above mean the scale of 0-255


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8, uint16 or floating-point pixels to float32 with full scale 1.

    Raises:
        MaximirError: another type, or values that are not finite or far outside [0, 1].
    """
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if pixels.dtype.kind != "f":
        raise MaximirError(f"images must be uint8, uint16 or floating point in [0, 1], not {pixels.dtype}")
    if not np.isfinite(pixels).all():
        raise MaximirError("the image holds values that are not finite")
    if np.abs(pixels).max() > FLOAT_LIMIT:
        raise MaximirError(
            f"floating-point images must be in [0, 1], but this one reaches {np.abs(pixels).max():.6g}: "
            "divide it by its full scale"
        )
    return pixels.astype(np.float32)


def from_unit(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Invert `to_unit`: clip and round to integers; floats only change type."""
    if dtype.kind == "f":
        return values.astype(dtype)
    full = np.iinfo(dtype).max
    return np.round(np.clip(values, 0, 1) * full).astype(dtype)


def in_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Return pixels that `to_unit` takes, as uint8."""
    if pixels.dtype == UINT8:
        return pixels
    result = np.empty(pixels.shape, UINT8)
    for row in range(0, len(pixels), BAND):  # floats of all at once would need four times the memory
        result[row : row + BAND] = from_unit(to_unit(pixels[row : row + BAND]), UINT8)
    return result
