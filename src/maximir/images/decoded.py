"""What the decoders of image files give.

Shapes: H height, W width, C channels: grey or RGB, and alpha behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypedDict

import numpy as np

Metadata = TypedDict(
    "Metadata",
    {
        # libvips's names
        "icc-profile-data": bytes,
        "exif-data": bytes,
        "xmp-data": bytes,
        "iptc-data": bytes,  # bare records, or Photoshop's resources
        "xres": float,  # pixels per mm, where the file says so
        "yres": float,
        "bits-per-sample": int,  # where it is fewer than the array's, which still has full range
        # ours
        "png-texts": bytes,  # chunks as they stood in the file
        "jpeg-segments": bytes,  # others of a JPEG, as they stood in the file
        "extra-sample": int,  # what a TIFF says its last channel is, if not usual alpha: see `tiff`
        "png-light": bytes,  # chunks on the light of HDR, as they stood in the file
        "comments": tuple[bytes, ...],  # of a JPEG or GIF
        "cicp": bytes,  # primaries and transfer of HDR colours, as numbers of ITU-T H.273
    },
    total=False,
)

CheckSize = Callable[[int, int], None]  # width, height; raises TooLarge


class Decoded(NamedTuple):
    """An upright image."""

    pixels: np.ndarray  # [H, W, C] uint8 or uint16
    metadata: Metadata
    notes: tuple[str, ...]
    turned: bool = False  # is upright now, but was not stored so
