"""What libvips leaves behind in a PNG: texts, colours by numbers, the number of frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from maximir.images.metadata import exif, profiles
from maximir.images.metadata.fields import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = 33  # of the signature and IHDR: where chunks may be put in
GREYS = (0, 4)  # types of colour: without and with alpha
LIGHT = (b"mDCV", b"cLLI")  # of HDR: of the screen where it was made, and of the picture
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP = b"XML:com.adobe.xmp\0"  # libvips keeps it
MAX_TEXTS = 2**20  # bytes of all texts together, and of one that is unpacked
MAX_XMP = 16 * 2**20
COMMENT = "Comment"  # PNG's keyword for what a JPEG's comment is


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


def described(png: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """What chunks say about the picture, before its pixels or behind them; and notes on what is not carried.

    Texts stay as they stand there. What is packed is unpacked only to see how long it is.
    """
    found: Metadata = {}
    notes: list[str] = []
    texts: list[bytes] = []
    light: dict[bytes, bytes] = {}
    length, ended = 0, False
    for kind, body in chunks(png):
        ended = kind == b"IEND"
        if kind == b"eXIf":
            found.setdefault("exif-data", body.removeprefix(exif.PREFIX))
        elif kind == b"pHYs" and len(body) == 9 and body[8] == 1:  # per metre
            x, y = struct.unpack_from(">II", body)
            found |= exif.sensible(x / 1000, y / 1000)
        elif kind == b"iTXt" and body.startswith(XMP):
            if (packet := _inflated(body[len(XMP) :], MAX_XMP)) is None:
                notes.append("damaged or too long XMP left out")
            else:
                found.setdefault("xmp-data", packet)
        elif kind in LIGHT and len(body) < 100:
            light[kind] = chunk(kind, body)
        elif kind in TEXTS:
            length += len(body) + 12
            if length > MAX_TEXTS or _is_bomb(kind, body):
                notes.append("texts of suspicious length left out")
                length -= len(body) + 12
            else:
                texts.append(chunk(kind, body))
    if not ended:  # all pixels are there, or decoding would have failed
        notes.append("the file is cut off behind its pixels")
    if light:
        found["png-light"] = b"".join(light.values())
    if texts:
        found["png-texts"] = b"".join(texts)
    return found, tuple(dict.fromkeys(notes))


def _inflated(rest: bytes, limit: int) -> bytes | None:
    """The text of an iTXt behind its keyword (flag, method, language, keyword); None: it cannot be read."""
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    return _unpacked(parts[2], limit) if rest[:1] == b"\1" else parts[2]


def _unpacked(packed: bytes, limit: int) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, limit)
    except zlib.error:
        return None
    return text if unpacker.eof else None


def _is_bomb(kind: bytes, body: bytes) -> bool:
    """Whether a text is packed, and longer than it may be, or damaged."""
    _, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        return _unpacked(rest[1:], MAX_TEXTS) is None
    return kind == b"iTXt" and rest[:1] == b"\1" and _inflated(rest, MAX_TEXTS) is None


def with_metadata(png: bytes, metadata: Metadata) -> bytes:
    """`png`, as libvips writes it, with chunks for what is known of the picture."""
    if "xres" not in metadata:  # libvips invents one
        at = len(SIGNATURE)
        for kind, body in chunks(png):
            if kind == b"pHYs":
                png = png[:at] + png[at + 12 + len(body) :]
            if kind in (b"pHYs", b"IDAT"):
                break
            at += 12 + len(body)
    added = (cicp(metadata["cicp"]) if "cicp" in metadata else b"") + metadata.get("png-light", b"")
    if block := metadata.get("exif-data"):
        added += chunk(b"eXIf", block)
    if packet := metadata.get("xmp-data"):
        added += chunk(b"iTXt", XMP + bytes(4) + packet)
    added += b"".join(map(comment, metadata.get("comments", ())))
    return with_chunks(png, added + metadata.get("png-texts", b""))


def comment(text: bytes) -> bytes:
    """The chunk for a comment of unknown encoding: UTF-8 if it is that, otherwise Latin-1."""
    text = text.rstrip(b"\0").replace(b"\0", b" ")
    try:
        if not text.isascii() and text.decode():
            return chunk(b"iTXt", COMMENT.encode() + bytes(5) + text)
    except UnicodeDecodeError:
        pass
    return chunk(b"tEXt", COMMENT.encode() + b"\0" + text)


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
