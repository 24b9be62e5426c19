"""Compression artefacts: photographs saved small, once or twice, as by messengers and old web pages."""

from __future__ import annotations

import numpy as np

from maximir.degradations.files import BLOCKS, compress

TWICE = 0.3  # share of the images that are saved a second time, with another grid of blocks
WHOLE = 0.6  # share of the savings whose grid begins at the first pixel, as in files that nobody cropped
FORMATS = {"JPEG": (0.8, (10, 90)), "WEBP": (0.1, (5, 80)), "AVIF": (0.1, (20, 70))}  # share, qualities


def compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Save with loss and open again, most often as JPEG of quality 10–90, now and then twice.

    Args:
        image: float32 [H, W, 3] in [0, 1].
        rng: draws the format, its quality, the place in its grid, and whether colour has half the resolution.
    """
    shares = [share for share, _ in FORMATS.values()]
    for _ in range(2 if rng.random() < TWICE else 1):
        kind = str(rng.choice(list(FORMATS), p=shares))
        least, most = FORMATS[kind][1]
        quality = least + int((most + 1 - least) * rng.random() ** 1.5)  # low ones more often: they need it
        row, column = (0, 0) if rng.random() < WHOLE else (int(n) for n in rng.integers(BLOCKS, size=2))
        image = compress(image, kind, quality, subsample=bool(rng.random() < 0.7), corner=(row, column))
    return image
