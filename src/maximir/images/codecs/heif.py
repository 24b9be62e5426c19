"""EXIF in AVIF files: libvips would write it anew."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# What libvips is given to make an item of, and what stands in its place then.
PLACEHOLDER = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 1, 0)


def with_exif(avif: bytes, block: bytes) -> bytes:
    """`avif`, as libheif writes it, whose EXIF item is this block: at the file's end, in a box of its own.

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
    """Kind, and where the content begins and ends."""
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        if length < 8 or start + length > end:
            return
        yield kind, start + 8, start + length
        start += length


def _extent(avif: bytes) -> tuple[int, int, int, int, int]:
    """Of the EXIF item: where its offset and its length are written, its base, its place and length."""
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
