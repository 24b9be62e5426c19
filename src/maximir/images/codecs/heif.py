"""Boxes of AVIF and HEIC files: colours by numbers, the light of HDR, and EXIF that libvips would rewrite."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from maximir.images.codecs.png import chunk
from maximir.images.metadata.fields import Metadata

# Block that libvips makes an item of, and that `with_exif` replaces.
PLACEHOLDER = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 1, 0)


MOST_SEARCHED = 65_536  # bytes
CANDELAS = 10_000  # units of a PNG's cLLI in 1 cd/m²


def numbers(heif: bytes) -> bytes | None:
    """Return the colours of the first image by numbers, if it has them."""
    at = heif.find(b"colrnclx", 0, MOST_SEARCHED) + 8
    return as_cicp(*struct.unpack_from(">HH", heif, at)) if 8 <= at <= len(heif) - 4 else None


def light(heif: bytes) -> Metadata:
    """Return what the first image says on the light of its HDR, as a PNG's chunks say it."""
    found = b""
    at = heif.find(b"\0\0\0\x20mdcv", 0, MOST_SEARCHED) + 8
    if 8 <= at <= len(heif) - 24:
        *green_blue, red_x, red_y, white_x, white_y = struct.unpack_from(">8H", heif, at)
        points = struct.pack(">8H", red_x, red_y, *green_blue, white_x, white_y)
        found += chunk(b"mDCV", points + heif[at + 16 : at + 24])
    at = heif.find(b"\0\0\0\x0cclli", 0, MOST_SEARCHED) + 8
    if 8 <= at <= len(heif) - 4:
        most, mean = struct.unpack_from(">2H", heif, at)
        found += chunk(b"cLLI", struct.pack(">2I", CANDELAS * most, CANDELAS * mean))
    return {"png-light": found} if found else {}


def as_cicp(primaries: int, transfer: int) -> bytes:
    """Return the numbers as a PNG's cICP states them: those of RGB in full range, as pixels are decoded."""
    return bytes((min(primaries, 255), min(transfer, 255), 0, 1))


def with_exif(avif: bytes, block: bytes) -> bytes:
    """Replace the EXIF item of an AVIF, as libheif writes it, by this block in a new box at the end.

    Raises:
        ValueError: there is no such item.
    """
    try:
        place = _extent(avif)
    except (struct.error, IndexError) as error:
        raise ValueError("odd boxes") from error
    offset_at, length_at, base, start, length = place
    item = bytes(4) + block  # bytes from here to the block
    data = bytearray(avif)
    data[start : start + length] = bytes(length)
    at = len(data) + 8
    struct.pack_into(">I", data, offset_at, at - base)
    struct.pack_into(">I", data, length_at, len(item))
    return bytes(data) + struct.pack(">I4s", 8 + len(item), b"mdat") + item


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, begin and end of the content of each box."""
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1 and start + 16 <= end:
            length, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif length == 0:  # to the end
            length = end - start
        if length < head or start + length > end or not kind.strip(b"\0"):
            return
        yield kind, start + head, start + length
        start += length


def _extent(avif: bytes) -> tuple[int, int, int, int, int]:
    """Find the EXIF item: where its offset and its length are written, its base, its place and length."""
    meta = {kind: (begin, end) for kind, begin, end in boxes(avif, 0, len(avif))}.get(b"meta")
    inside = {kind: (a, b) for kind, a, b in boxes(avif, meta[0] + 4, meta[1])} if meta else {}
    if b"iinf" not in inside or b"iloc" not in inside:
        raise ValueError("no items")
    number = None
    for kind, begin, _ in boxes(avif, inside[b"iinf"][0] + 6, inside[b"iinf"][1]):
        if kind == b"infe" and avif[begin] == 2 and avif[begin + 8 : begin + 12] == b"Exif":
            (number,) = struct.unpack_from(">H", avif, begin + 4)
    at, _ = inside[b"iloc"]
    version, sizes, more, count = avif[at], avif[at + 4], avif[at + 5], avif[at + 6 : at + 8]
    if version > 1 or sizes != 0x44 or more not in (0x00, 0x40) or number is None:
        raise ValueError("items in an unexpected form")
    at += 8
    for _ in range(int.from_bytes(count, "big")):
        (item,) = struct.unpack_from(">H", avif, at)
        at += 4 + 2 * (version == 1)  # its number, how it is stored, in which file
        base = 0
        if more:
            (base,) = struct.unpack_from(">I", avif, at)
            at += 4
        (extents,) = struct.unpack_from(">H", avif, at)
        at += 2
        if item == number and extents == 1:
            offset, length = struct.unpack_from(">II", avif, at)
            return at, at + 4, base, base + offset, length
        at += 8 * extents
    raise ValueError("the item is nowhere")
