"""Photographs in and out of files: every pixel and what the file says about them, or one clear error.

Shapes: H height, W width, C channels: grey or RGB, and alpha behind them.
"""

from maximir.images.codecs.vips import cmyk_to_srgb
from maximir.images.photo import Photo
from maximir.images.reading import MAX_BYTES, MAX_PIXELS, START, check_start, decode, read
from maximir.images.writing import KINDS, NOT_WRITABLE, RAW, WRITABLE, check_fits, encode, kind_for, write

__all__ = [
    "KINDS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "NOT_WRITABLE",
    "RAW",
    "START",
    "WRITABLE",
    "Photo",
    "check_fits",
    "check_start",
    "cmyk_to_srgb",
    "decode",
    "encode",
    "kind_for",
    "read",
    "write",
]
