"""The effects of saving as a file: rounding to 8 bits, lossy compression."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from maximir.pixels import UINT8, from_unit, to_unit

BLOCKS = 16  # side of a JPEG's largest blocks, those of subsampled colour


def quantise(image: np.ndarray) -> np.ndarray:
    """Clip to [0, 1] and round to 8 bits, as in a file: float32 in, float32 out."""
    return to_unit(from_unit(image, UINT8))


def compress(
    image: np.ndarray,
    kind: str,
    quality: int,
    *,
    subsample: bool = False,
    corner: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Encode with loss in memory and decode: float32 [H, W, 3] in and out.

    Args:
        kind: "JPEG", "WEBP" or "AVIF".
        quality: on Pillow's scale; for JPEG 1–95 and above.
        subsample: store colour at half resolution (4:2:0) rather than full (4:4:4). WebP always does.
        corner: (row, column) of the image's first pixel within the first block. Crops begin anywhere in a
            photograph's grid of blocks, which are 8 pixels wide, or 16 with subsampling.
    """
    row, column = corner
    framed = np.pad(from_unit(image, UINT8), ((row, 0), (column, 0), (0, 0)), mode="symmetric")
    file = io.BytesIO()
    chroma = {} if kind == "WEBP" else {"subsampling": "4:2:0" if subsample else "4:4:4"}
    Image.fromarray(framed).save(file, kind, quality=quality, **chroma)
    with Image.open(file) as stored:
        return to_unit(np.asarray(stored)[row:, column:])


def as_file(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    jpegs: float = 0.25,
    qualities: tuple[int, int] = (75, 98),
) -> np.ndarray:
    """Round to 8 bits as in a file; a share `jpegs` of the images also passes through a JPEG."""
    if rng.random() >= jpegs:
        return quantise(image)
    quality, row, column = (
        int(n) for n in rng.integers((qualities[0], 0, 0), (qualities[1] + 1, BLOCKS, BLOCKS))
    )
    return compress(image, "JPEG", quality, subsample=bool(rng.random() < 0.5), corner=(row, column))
