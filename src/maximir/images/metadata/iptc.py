"""IPTC records: bare, as TIFF has them, or among Photoshop's resources, as JPEG has them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PHOTOSHOP = b"Photoshop 3.0\0"
RECORDS = 0x0404  # the resource that holds IPTC
THUMBNAILS = (0x0409, 0x040C)  # of the picture before restoring


def resources(wrapped: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, content and all bytes of each complete resource."""
    at = len(PHOTOSHOP)
    while at + 12 <= len(wrapped) and wrapped[at : at + 4] == b"8BIM":
        number, name = struct.unpack_from(">HB", wrapped, at + 4)
        start = at + 6 + name + 1 + (name + 1) % 2
        if start + 4 > len(wrapped):
            return
        (length,) = struct.unpack_from(">I", wrapped, start)
        end = start + 4 + length
        if end > len(wrapped):
            return
        yield number, wrapped[start + 4 : end], wrapped[at:end] + b"\0" * (length % 2)
        at = end + length % 2


def restored(blob: bytes) -> bytes:
    """Remove the thumbnails of the picture before restoring; leave what is not understood."""
    if not blob.startswith(PHOTOSHOP) or not any(n in THUMBNAILS for n, _, _ in resources(blob)):
        return blob
    return PHOTOSHOP + b"".join(whole for n, _, whole in resources(blob) if n not in THUMBNAILS)


def bare(blob: bytes) -> bytes:
    """Return the records alone."""
    if not blob.startswith(PHOTOSHOP):
        return blob
    return b"".join(content for number, content, _ in resources(blob) if number == RECORDS)


def wrapped(blob: bytes) -> bytes:
    """Return Photoshop's resources; made of the records if there are no others."""
    if blob.startswith(PHOTOSHOP):
        return blob
    head = b"8BIM" + struct.pack(">H2xI", RECORDS, len(blob))
    return PHOTOSHOP + head + blob + b"\0" * (len(blob) % 2)
