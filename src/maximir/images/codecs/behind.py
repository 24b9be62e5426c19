"""Parts of a file that are not the picture: bytes behind it, and chunks and boxes that are not carried."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from maximir.images.codecs import gif, heif
from maximir.images.codecs.png import SIGNATURE

MOST = 64  # bytes that need no note
CHUNKS = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "))
BOXES = frozenset(
    b"ftyp meta mdat moov free skip styp pdin wide JXL jxll jxlc jxlp jxli Exif xml brob jbrd".split()
)
VIDEO = b"mpvd"  # of a motion photo


def notes(data: bytes, kind: str | None) -> tuple[str, ...]:
    """Return notes on what a file has besides its picture and what is read of it. JPEG: see `jpeg.notes`."""
    match kind:
        case "png":
            parts = list(_png(data))
        case "webp":
            parts = list(_webp(data))
        case "avif" | "heic" | "jxl" if data[4:8] in (b"ftyp", b"JXL "):
            parts = [(name.strip(), end) for name, _, end in heif.boxes(data, 0, len(data))]
        case "gif":
            parts = [(b"", gif.end(data))]
        case "bmp":
            parts = [(b"", _bmp(data))]
        case _:
            return ()
    end = max((end for _, end in parts), default=len(data))
    found = []
    names = [name for name, _ in parts if name not in CHUNKS | BOXES and kind not in ("png", "gif", "bmp")]
    if VIDEO in names:
        found.append("video left out")
    if others := dict.fromkeys(name.decode("latin-1").strip() for name in names[:20] if name != VIDEO):
        found.append(f"other data of the file left out ({', '.join(others)})")
    if (behind := len(data[end:].rstrip(b"\0"))) > MOST:
        found.append(f"{behind:,} bytes behind the picture left out")
    return tuple(found)


def _png(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data):
            return
        yield name, at
        if name == b"IEND":
            return


def _webp(data: bytes) -> Iterator[tuple[bytes, int]]:
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    yield b"VP8X", end
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        at += 8 + length + length % 2
        yield name, min(at, end)


def _bmp(data: bytes) -> int:
    """Return where the pixels, the file as its header states it, and an embedded profile end."""
    size, start = struct.unpack_from("<I4xI", data, 2)
    ends = [size]
    if len(data) >= 54 and int.from_bytes(data[14:18], "little") >= 40:
        width, height, bits, _, length = struct.unpack_from("<ii2xHII", data, 18)
        ends.append(start + max(length, (abs(width) * bits + 31) // 32 * 4 * abs(height)))
        header = int.from_bytes(data[14:18], "little")
        if header == 124 and len(data) >= 138:
            at, profile = struct.unpack_from("<II", data, 126)
            ends.append(14 + at + profile)
    return max((end for end in ends if end <= len(data)), default=len(data))
