"""Metadata in WebP files: libvips would write EXIF anew."""

from __future__ import annotations

import struct

ICC, ALPHA, EXIF, XMP = 0x20, 0x10, 0x08, 0x04  # flags of the extended header


def with_metadata(webp: bytes, width: int, height: int, exif: bytes | None, xmp: bytes | None) -> bytes:
    """Add chunks behind a still picture, as libwebp writes it."""
    flags = (EXIF if exif else 0) | (XMP if xmp else 0)
    if not flags:
        return webp
    body = webp[12:]
    if body[:4] == b"VP8X":
        body = body[:8] + bytes((body[8] | flags,)) + body[9:]
    else:  # VP8L: 14 bits each of width and height, then whether there is alpha
        flags |= ALPHA if body[:4] == b"VP8L" and body[12] & 0x10 else 0
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = _chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size) + body
    body += (_chunk(b"EXIF", exif) if exif else b"") + (_chunk(b"XMP ", xmp) if xmp else b"")
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
