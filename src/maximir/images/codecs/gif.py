"""What libvips leaves behind in a GIF: comments and XMP."""

from __future__ import annotations

from maximir.images.metadata.fields import Metadata

EXTENSION, IMAGE, COMMENT, APPLICATION = 0x21, 0x2C, 0xFE, 0xFF
XMP, XMP_TAIL = (
    b"\x0bXMP DataXMP",
    b"\1\xff\xfe",
)  # a packet in no blocks, and what leads readers of blocks over it
MOST_BLOCKS = 10_000  # that are looked at
MOST_BYTES = 2**20  # of comments


def described(gif: bytes) -> Metadata:
    """What the file says about the picture, as far as it can be followed."""
    found: Metadata = {}
    comments: list[bytes] = []
    try:
        at = 13 + _colours(gif[10])
        for _ in range(MOST_BLOCKS):
            if gif[at] == IMAGE:
                at = _end(gif, at + 11 + _colours(gif[at + 9]))
            elif gif[at] == EXTENSION:
                kind, start = gif[at + 1], at + 2
                at = _end(gif, start)
                if kind == COMMENT and at - start < MOST_BYTES:
                    comments.append(_joined(gif, start))
                elif kind == APPLICATION and gif.startswith(XMP, start):
                    tail = gif.find(XMP_TAIL, start, at)
                    found.setdefault("xmp-data", gif[start + len(XMP) : tail])
            else:
                break
    except IndexError:  # cut off
        pass
    if comments := [comment for comment in comments if comment]:
        found["comments"] = tuple(comments)
    return found


def _colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _end(gif: bytes, at: int) -> int:
    """Behind the blocks that begin there."""
    while length := gif[at]:
        at += 1 + length
    return at + 1


def _joined(gif: bytes, at: int) -> bytes:
    parts = []
    while length := gif[at]:
        parts.append(gif[at + 1 : at + 1 + length])
        at += 1 + length
    return b"".join(parts)
