"""The header of a JPEG XL file: what it will take to decode it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from maximir.errors import DamagedImage

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
STARTS = (b"\xff\x0a", CONTAINER)
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))  # bits to read, and what to add: one of four ways
INTEGER_BITS, FLOAT_BITS = ((0, 8), (0, 10), (0, 12), (6, 1)), ((0, 32), (0, 16), (0, 24), (6, 1))
TICKS = ((0, 100), (0, 1000), (10, 1), (30, 1)), ((0, 1), (0, 1001), (8, 1), (10, 1))
LOOPS = ((0, 0), (3, 0), (16, 0), (32, 0))


class Header(NamedTuple):
    """Width and height as stored or turned, bits of a sample (0: not known)."""

    width: int
    height: int
    bits: int
    animated: bool


def header(data: bytes) -> Header:
    """Read the header. Raises DamagedImage if there is none."""
    try:
        return _header(_Bits(_codestream(data)))
    except (struct.error, IndexError, OverflowError) as error:
        raise DamagedImage("the file is truncated or damaged (no JPEG XL header)") from error


def _codestream(data: bytes) -> bytes:
    """Return the beginning of the codestream, which in a container is in a box."""
    if data.startswith(STARTS[0]):
        return data[2:100]
    at = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # its number; the first part comes first
            return data[start + 2 : start + 100]
        if length < start - at:
            raise IndexError
        at += length


class _Bits:
    """Numbers from the lowest bit up. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self.left:
            raise IndexError
        taken = self.value & ((1 << count) - 1)
        self.value, self.left = self.value >> count, self.left - count
        return taken

    def choose(self, ways: tuple[tuple[int, int], ...]) -> int:
        """Read two bits that choose how many bits follow and what is added to them."""
        bits, offset = ways[self.take(2)]
        return self.take(bits) + offset


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = (bits.take(5) + 1) * 8 if small else bits.choose(SIZE)
    if ratio := bits.take(3):
        over, under = RATIOS[ratio - 1]
        return height * over // under, height
    return (bits.take(5) + 1) * 8 if small else bits.choose(SIZE), height


def _header(bits: _Bits) -> Header:
    width, height = _size(bits)
    if bits.take(1):  # all defaults
        return Header(width, height, 8, False)
    animated = False
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(1):  # the size to show it at
            _size(bits)
        if bits.take(1):  # a preview
            return Header(width, height, 0, False)
        if animated := bool(bits.take(1)):
            for ways in (*TICKS, LOOPS):
                bits.choose(ways)
            bits.take(1)  # time codes
    is_float = bits.take(1)
    return Header(width, height, bits.choose(FLOAT_BITS if is_float else INTEGER_BITS), animated)
