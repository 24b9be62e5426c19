"""What libvips leaves behind in a PNG: texts, colours by numbers, the number of frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from maximir.images import profiles
from maximir.images.decoded import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = 33  # of the signature and IHDR: where chunks may be put in
GREYS = (0, 4)  # types of colour: without and with alpha
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP = b"XML:com.adobe.xmp\0"  # libvips keeps it
MAX_TEXTS = 2**20  # bytes of all texts together


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk that is whole, as far as the file can be followed. IDATs have no body."""
    at = len(SIGNATURE)
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if at + 12 + length > len(png):
            return
        yield kind, b"" if kind == b"IDAT" else png[at + 8 : at + 8 + length]
        at += 12 + length


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def texts(png: bytes) -> bytes:
    """The chunks with texts as they stand there, never inflated; nothing if they are suspiciously long."""
    kept = b"".join(
        chunk(kind, body) for kind, body in chunks(png) if kind in TEXTS and not body.startswith(XMP)
    )
    return kept if len(kept) <= MAX_TEXTS else b""


def with_chunks(png: bytes, added: bytes) -> bytes:
    """`png` with chunks behind its header."""
    return b"".join((png[:HEADER_END], added, memoryview(png)[HEADER_END:])) if added else png


def frames(png: bytes) -> int:
    """How many pictures an animated PNG has; 1 if it is none."""
    for kind, body in chunks(png):
        if kind == b"acTL" and len(body) == 8:
            return max(1, int.from_bytes(body[:4], "big"))
        if kind == b"IDAT":
            break
    return 1


def colours(png: bytes) -> Metadata:
    """Metadata for the colour space that the file tells by numbers instead of a profile."""
    told: dict[bytes, bytes] = {}
    grey = png[25] in GREYS
    for kind, body in chunks(png):
        if kind == b"IDAT":
            break
        told.setdefault(kind, body)
    if len(cicp := told.get(b"cICP", b"")) == 4:
        return profiles.described(cicp[0], cicp[1], grey=grey)
    if told.keys() & {b"sRGB", b"iCCP"} or len(told.get(b"gAMA", b"")) != 4:
        return {}
    gamma = int.from_bytes(told[b"gAMA"], "big") / 100_000
    if not 0.1 <= gamma <= 2:  # 1/2.2 is usual, 1 is linear light; what is beyond is a mistake
        return {}
    primaries = profiles.BT709
    if len(points := told.get(b"cHRM", b"")) == 32:
        values = [value / 100_000 for value in struct.unpack(">8I", points)]
        white, *rest = zip(values[::2], values[1::2], strict=True)
        if all(0 < x < 1 and 0 < y < 1 and x + y <= 1 for x, y in (white, *rest)):
            primaries = (*rest, white)
    found = profiles.Colours(primaries, 1 / gamma)
    try:
        return {} if found.is_srgb() else {"icc-profile-data": profiles.profile(found, grey=grey)}
    except np.linalg.LinAlgError:  # primaries on a line
        return {}


def cicp(numbers: bytes) -> bytes:
    """The chunk for primaries and transfer by numbers."""
    return chunk(b"cICP", numbers + b"\0\1")  # RGB, full range
