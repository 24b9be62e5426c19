"""Directories of fields (IFDs): what TIFF files and EXIF blocks are made of.

They come from strangers: what makes no sense is left out, and nothing is followed without bounds.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
# Bytes of a value by its type: BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG,
# SRATIONAL, FLOAT, DOUBLE, IFD; BigTIFF's LONG8, SLONG8, IFD8; EXIF 3.0's UTF-8.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SIZES |= {16: 8, 17: 8, 18: 8, 129: 1}
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
ASCII, SHORT, LONG, UTF8 = 2, 3, 4, 129
OF_BIGTIFF = (16, 17, 18)  # types that other TIFF files and EXIF lack
MOST_NUMBERS = 100_000  # of one field
MOST_FIELDS = 100_000  # of all directories: some are circular


class Field(NamedTuple):
    """Place of a field of `n` values: `at` is its entry in the directory, `begin` and `size` its values."""

    tag: int
    kind: int
    n: int
    at: int
    begin: int
    size: int


class Reader:
    """A file or block of directories.

    Raises:
        struct.error: it is none; from all methods: what they look for is not there.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        if bytes(data[:4]) not in STARTS:
            raise struct.error("no directories")
        self.data = data
        self.left = MOST_FIELDS
        self.order = "<" if data[:1] == b"I" else ">"
        self.big = 43 in data[2:4]
        self.offset = self.order + ("Q" if self.big else "I")  # how offsets are written

    def first(self) -> int:
        """Return the offset of the first directory."""
        return int(struct.unpack_from(self.offset, self.data, 8 if self.big else 4)[0])

    def directory(self, start: int) -> tuple[list[Field], int]:
        """Return the complete fields, and the place of the offset of the next directory."""
        (count,) = self._at("Q" if self.big else "H", start)
        self.left -= min(count, len(self.data) // 12)
        if self.left < 0:
            raise struct.error("too many fields")
        entry = struct.Struct(self.order + ("HHQ" if self.big else "HHI"))
        head, room = (8, 8) if self.big else (2, 4)
        length = entry.size + room
        found = []
        for at in range(
            start + head, min(start + head + length * count, len(self.data) - length + 1), length
        ):
            tag, kind, n = entry.unpack_from(self.data, at)
            size = SIZES.get(kind, 0) * n
            begin = at + entry.size
            if size > room:
                (begin,) = struct.unpack_from(self.offset, self.data, begin)
            if size > 0 and begin + size <= len(self.data):
                found.append(Field(tag, kind, n, at, begin, size))
        return found, start + head + length * count

    def following(self, at: int) -> int:
        """Return the offset of the next directory; 0 if there is none."""
        return int(self._at(self.offset[1:], at)[0])

    def value(self, field: Field) -> bytes:
        return bytes(self.data[field.begin : field.begin + field.size])

    def numbers(self, field: Field) -> tuple[int, ...]:
        """Return the field's integers; nothing if it has other values."""
        if field.kind not in INTEGERS or field.n > MOST_NUMBERS:
            return ()
        return struct.unpack_from(f"{self.order}{field.n}{INTEGERS[field.kind]}", self.data, field.begin)

    def _at(self, kind: str, at: int) -> tuple[int, ...]:
        if at < 0 or at > len(self.data):
            raise struct.error("out of the data")
        return struct.unpack_from(self.order + kind, self.data, at)


def numbers(reader: Reader, fields: list[Field], *tags: int) -> dict[int, tuple[int, ...]]:
    """Return integers by tag. The first of repeated tags counts, as in most readers."""
    found: dict[int, tuple[int, ...]] = {}
    for field in fields:
        if field.tag in tags and field.tag not in found and (values := reader.numbers(field)):
            found[field.tag] = values
    return found
