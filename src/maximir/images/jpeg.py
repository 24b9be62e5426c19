"""What libvips does not say about a JPEG: whether all of it is there, and what is besides the picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from maximir.images import tiff

END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN = 0xDA
HUFFMAN = (0xC0, 0xC1, 0xC2)  # frames of such codes: every block takes one bit at least
APP1, APP2 = 0xE1, 0xE2
ENTRIES = 0xB002  # of the directory of pictures
LARGE_THUMBNAILS = (0x010001, 0x010002)
GAIN_MAPS = (b"urn:iso:std:iso:ts:21496:-1", b"hdrgm:Version", b"HDRGainMap:HDRGainMapVersion")
VIDEOS = (b"MotionPhoto=", b"MicroVideo=", b"GCamera:MotionPhoto>", b"GCamera:MicroVideo>")


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of the segments before the first scan; then the scan's marker and what follows it."""
    at = 2
    while at + 4 <= len(jpeg):
        if jpeg[at] != 0xFF:
            return
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == START_OF_SCAN:
            yield marker, jpeg[at + 2 + length :]
            return
        yield marker, jpeg[at + 4 : at + 2 + length]
        at += 2 + length


def is_cut(jpeg: bytes) -> bool:
    """Whether it is too short for the size that it tells. libjpeg would make up the rest, and only warn."""
    for marker, body in segments(jpeg):
        if marker in HUFFMAN and len(body) > 5:
            height, width = struct.unpack_from(">HH", body, 1)
            return bool(len(jpeg) * 8 < height * width // 64)
    return False


def notes(jpeg: bytes) -> tuple[str, ...]:
    """On pictures and videos besides the first picture."""
    found, pictures, gain_map, video = [], 1, False, False
    for marker, body in segments(jpeg):
        if marker in (APP1, APP2):
            gain_map |= any(mark in body for mark in GAIN_MAPS)
            video |= any(mark in body for mark in VIDEOS)
        if marker == APP2 and body.startswith(b"MPF\0"):
            pictures = max(pictures, len(entries(body[4:])))
        if marker == START_OF_SCAN:
            # In a scan 0xFF is followed by 0 or by a marker: this is the end, or in a table by chance.
            end = body.find(END_OF_IMAGE)
            video &= end >= 0 and b"ftyp" in body[end:]
    if gain_map and pictures > 1:
        found.append("gain map for HDR left out")
    elif pictures > 1:
        found.append(f"first of {pictures} pictures")
    if video:
        found.append("video left out")
    return tuple(found)


def entries(directory: bytes) -> list[int]:
    """The kinds of the pictures in a file of several, without thumbnails."""
    try:
        fields, _ = tiff.directories(directory)
    except struct.error:
        return []
    _, _, table = fields.get(ENTRIES, (0, 0, b""))
    order = "<I" if directory[:2] == b"II" else ">I"
    kinds = (struct.unpack_from(order, table, at)[0] & 0xFFFFFF for at in range(0, len(table) - 15, 16))
    return [kind for kind in kinds if kind not in LARGE_THUMBNAILS]
