"""Read a picture's size from the first bytes of its file, for estimates before decoding.

This uses no decoder and no library with one, because the serving process calls it. The size in a header is
trusted for estimates only.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

START = 32_768  # bytes that hold the size in all formats except JPEG and TIFF
MOST_SEGMENTS = 1000  # of a JPEG, before the picture
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's frame markers
WIDTH, HEIGHT = 256, 257  # TIFF's tags


def size(file: BinaryIO) -> tuple[int, int] | None:
    """Return height and width as stored; None if it is not a picture or its format has no simple header.

    Moves the file's position.
    """
    try:
        file.seek(0)
        found = _size(file.read(START), file)
    except (struct.error, ValueError, OverflowError, OSError):  # truncated, invalid, or beyond the file's end
        return None
    return found if found is not None and min(found) > 0 else None


def _size(start: bytes, file: BinaryIO) -> tuple[int, int] | None:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">2I", start, 16)
        return height, width
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg(file)
    if start.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<2H", start, 6)
        return height, width
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp(start)
    if start.startswith(b"BM"):
        width, height = struct.unpack_from("<2i", start, 18)
        return abs(height), abs(width)
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _tiff(start, file)
    if start[4:8] == b"ftyp":
        return _heif(start)
    return None


def _jpeg(file: BinaryIO) -> tuple[int, int] | None:
    at = 2
    for _ in range(MOST_SEGMENTS):
        file.seek(at)
        mark, kind, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:
            return None
        if kind in FRAMES:
            height, width = struct.unpack(">x2H", file.read(5))
            return height, width
        at += 1 if kind == 0xFF else 2 + length  # fill bytes may precede a marker
    return None


def _webp(start: bytes) -> tuple[int, int] | None:
    match start[12:16]:
        case b"VP8X":
            width, more_width, height, more_height = struct.unpack_from("<HBHB", start, 24)
            return 1 + height + (more_height << 16), 1 + width + (more_width << 16)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", start, 21)
            return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<2H", start, 26)
            return height & 0x3FFF, width & 0x3FFF
    return None


def _tiff(start: bytes, file: BinaryIO) -> tuple[int, int] | None:
    """Return the size in the first directory."""
    order, big = "<" if start[:2] == b"II" else ">", start[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", start, 8 if big else 4)
    file.seek(at)
    count, entry = ("Q", "HHQ8s") if big else ("H", "HHI4s")
    (entries,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
    found = {}
    for _ in range(min(entries, 100)):
        tag, kind, _, value = struct.unpack(order + entry, file.read(struct.calcsize(order + entry)))
        if tag in (WIDTH, HEIGHT) and kind in (3, 4, 16):
            (found[tag],) = struct.unpack_from(order + {3: "H", 4: "I", 16: "Q"}[kind], value)
    return (found[HEIGHT], found[WIDTH]) if len(found) == 2 else None


def _heif(start: bytes) -> tuple[int, int] | None:
    """Return the largest size: AVIF and HEIC list the sizes of all their pictures, tiles and thumbnails."""
    sizes, at = [], start.find(b"ispe")
    while 0 <= at <= len(start) - 16:
        width, height = struct.unpack_from(">2I", start, at + 8)
        sizes.append((height, width))
        at = start.find(b"ispe", at + 4)
    return max(sizes, key=lambda each: each[0] * each[1], default=None)
