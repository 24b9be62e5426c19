"""Colour spaces in BMP files, which Pillow does not read."""

from __future__ import annotations

import struct

import numpy as np

from maximir.images.metadata import profiles
from maximir.images.metadata.fields import Metadata

HEADER = 14  # bytes before the header with the picture's size
V4, V5 = 108, 124  # bytes of the headers that state a colour space
CALIBRATED, EMBEDDED, LINKED = 0, 0x4D424544, 0x4C494E4B
LINK_NOTE = "colour profile that is in another file left out"


def colours(bmp: bytes, *, grey: bool) -> tuple[Metadata, tuple[str, ...]]:
    """Return metadata for the colour space that the header states, and notes on what of it is not carried."""
    length = int.from_bytes(bmp[HEADER : HEADER + 4], "little")
    if length not in (V4, V5) or len(bmp) < HEADER + length:
        return {}, ()
    (space,) = struct.unpack_from("<I", bmp, HEADER + 56)
    if space == CALIBRATED:
        found = _calibrated(bmp)
        return ({} if found is None else profiles.described(found, grey=grey)), ()
    if length == V5 and space == LINKED:
        return {}, (LINK_NOTE,)
    if length == V5 and space == EMBEDDED:
        at, size = struct.unpack_from("<II", bmp, HEADER + 112)
        return {"icc-profile-data": bmp[HEADER + at : HEADER + at + size]}, ()
    return {}, ()


def _calibrated(bmp: bytes) -> profiles.Colours | None:
    """Return the space of the end points (XYZ of red, green and blue, in 2.30 bits) and gammas (16.16)."""
    xyz = np.array(struct.unpack_from("<9i", bmp, HEADER + 60), float).reshape(3, 3) / 2**30
    gamma = sum(struct.unpack_from("<3I", bmp, HEADER + 96)) / 3 / 2**16
    sums = np.vstack([xyz, xyz.sum(axis=0)])
    if (sums.sum(axis=1) <= 0).any():
        return None
    points = tuple((float(x), float(y)) for x, y in sums[:, :2] / sums.sum(axis=1, keepdims=True))
    if not profiles.are_plausible(points):
        return None
    return profiles.Colours(points, gamma if 1 <= gamma <= 4 else None)
