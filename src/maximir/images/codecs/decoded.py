"""Result of the decoders of image files.

Shapes: H height, W width, C channels: grey or RGB, and alpha behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from maximir.images.metadata.fields import Metadata

CheckSize = Callable[[int, int], None]  # width, height; raises TooLarge


class Decoded(NamedTuple):
    """An upright image."""

    pixels: np.ndarray  # [H, W, C] uint8 or uint16
    metadata: Metadata
    notes: tuple[str, ...]
    turned: bool = False  # rotated on decoding
