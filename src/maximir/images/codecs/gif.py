"""Parts of a GIF that libvips does not read: comments, XMP and the profile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from maximir.images.metadata.fields import Metadata

EXTENSION, IMAGE, TRAILER, COMMENT, APPLICATION = 0x21, 0x2C, 0x3B, 0xFE, 0xFF
XMP, XMP_TAIL = (
    b"\x0bXMP DataXMP",
    b"\1\xff\xfe",
)  # a packet without blocks, and the tail that lets block readers skip it
ICC = b"\x0bICCRGBG1012"
MOST_BLOCKS = 10_000  # read at most
MOST_BYTES = 2**20  # of comments


def described(gif: bytes) -> Metadata:
    """Return the metadata of a GIF, as far as its blocks are complete."""
    found: Metadata = {}
    comments: list[bytes] = []
    for at, after in _blocks(gif):
        kind, start = gif[at + 1], at + 2
        if gif[at] != EXTENSION:
            continue
        if kind == COMMENT and after - start < MOST_BYTES:
            comments.append(_joined(gif, start))
        elif kind == APPLICATION and gif.startswith(XMP, start):
            begin = start + len(XMP)
            tail = gif.find(XMP_TAIL, begin, after)
            found.setdefault("xmp-data", gif[begin:tail] if tail >= 0 else _joined(gif, begin))
        elif kind == APPLICATION and gif.startswith(ICC, start):
            found.setdefault("icc-profile-data", _joined(gif, start + len(ICC)))
    if comments := [comment for comment in comments if comment]:
        found["comments"] = tuple(comments)
    return found


def end(gif: bytes) -> int:
    """Return where the file's blocks end; its length if they cannot be followed."""
    at = max((after for _, after in _blocks(gif)), default=0)
    return at + 1 if gif[at : at + 1] == bytes([TRAILER]) else len(gif)


def _blocks(gif: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each image or extension begins and ends, up to the first that is cut off."""
    with contextlib.suppress(IndexError):
        at = 13 + _colours(gif[10])
        for _ in range(MOST_BLOCKS):
            if gif[at] not in (IMAGE, EXTENSION):
                return
            start = at
            at = _end(gif, at + 2 if gif[at] == EXTENSION else at + 11 + _colours(gif[at + 9]))
            yield start, at


def _colours(flags: int) -> int:
    """Return the bytes of a table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _end(gif: bytes, at: int) -> int:
    """Return the offset after the blocks that begin at `at`."""
    while length := gif[at]:
        at += 1 + length
    return at + 1


def _joined(gif: bytes, at: int) -> bytes:
    parts = []
    while length := gif[at]:
        parts.append(gif[at + 1 : at + 1 + length])
        at += 1 + length
    return b"".join(parts)
