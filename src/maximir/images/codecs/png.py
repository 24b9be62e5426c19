"""Parts of a PNG that libvips does not read: texts, colours by numbers, the number of frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from maximir.images.metadata import exif, profiles
from maximir.images.metadata.fields import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = 33  # of the signature and IHDR: where chunks may be put in
GREYS = (0, 4)  # types of colour: without and with alpha
LIGHT = (b"mDCV", b"cLLI")  # of HDR: of the screen where it was made, and of the picture
# Chunks that are read elsewhere, or that say how pixels are stored.
HANDLED = frozenset(b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sRGB cICP acTL fcTL fdAT iDOT".split())
STAY = (b"tIME", b"oFFs", b"sCAL", b"sTER")  # and those whose name marks them as safe to copy
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by type of colour, without palettes
SAYS_NOTHING = (b"sBIT",)  # where it stays: all bits are significant
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP = b"XML:com.adobe.xmp\0"  # libvips keeps it
MAX_TEXTS = 2**20  # bytes of all texts together, and of one that is unpacked
MAX_XMP = 16 * 2**20
CREDENTIALS_NOTE = "content credentials, which were for the picture as it was, left out"
COMMENT = "Comment"  # PNG's keyword for what a JPEG's comment is


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of each complete chunk. IDATs are yielded without their body."""
    at = len(SIGNATURE)
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if at + 12 + length > len(png):
            return
        yield kind, b"" if kind == b"IDAT" else png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            return


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def described(png: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """Return the metadata in chunks before and behind the pixels, and notes on what is not kept.

    Texts are kept as stored. Packed ones are unpacked only to measure them.
    """
    found: Metadata = {}
    notes: list[str] = []
    texts: list[bytes] = []
    light: dict[bytes, bytes] = {}
    others: list[bytes] = []
    dropped: list[str] = []
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
        elif kind == b"caBX":
            notes.append(CREDENTIALS_NOTE)
        elif kind not in HANDLED:
            length += len(body) + 12
            if length <= MAX_TEXTS and _stays(kind, body, png):
                others.append(chunk(kind, body))
            else:
                dropped.append(kind.decode("latin-1"))
                length -= len(body) + 12
    if dropped:
        notes.append(f"chunks of the PNG left out ({', '.join(dict.fromkeys(dropped[:20]))})")
    if not ended:  # all pixels are there, or decoding would have failed
        notes.append("the file is cut off behind its pixels")
    if light:
        found["png-light"] = b"".join(light.values())
    if others:
        found["png-chunks"] = b"".join(dict.fromkeys(others))
    if texts:
        found["png-texts"] = b"".join(texts)
    return found, tuple(dict.fromkeys(notes))


def _stays(kind: bytes, body: bytes, png: bytes) -> bool:
    """Return whether a chunk holds for the restored picture, which has 8 or 16 bits and no palette."""
    depth, colours = png[24], png[25]
    if kind == b"sBIT":
        return (
            len(body) == CHANNELS.get(colours) and set(body) == {depth} and depth >= 8 and not _has_key(png)
        )
    if kind == b"bKGD":
        return colours in CHANNELS and depth >= 8
    if kind == b"pHYs":  # how wide pixels are for their height
        return len(body) == 9 and body[8] == 0
    return kind in STAY or kind[3:].islower()


def with_axes_swapped(others: bytes) -> bytes:
    """Return these chunks for a picture whose axes were exchanged."""
    return b"".join(
        chunk(kind, body[4:8] + body[:4] + body[8:] if kind == b"pHYs" else body)
        for kind, body in chunks(SIGNATURE + others)
    )


def _has_key(png: bytes) -> bool:
    """Return whether one colour is transparent, so that the restored picture has a channel more."""
    return any(kind == b"tRNS" for kind, _ in chunks(png))


def names(others: bytes) -> str:
    """Return the names of chunks that say something: "tIME, oFFs"."""
    found = (kind.decode("latin-1") for kind, _ in chunks(SIGNATURE + others) if kind not in SAYS_NOTHING)
    return ", ".join(dict.fromkeys(found))


def _inflated(rest: bytes, limit: int) -> bytes | None:
    """Return the text of an iTXt, from the bytes after its keyword; None if it cannot be read."""
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
    """Return whether a text is packed, and too long or damaged."""
    _, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        return _unpacked(rest[1:], MAX_TEXTS) is None
    return kind == b"iTXt" and rest[:1] == b"\1" and _inflated(rest, MAX_TEXTS) is None


def with_metadata(png: bytes, metadata: Metadata) -> bytes:
    """Add chunks for the metadata to `png`, as libvips writes it."""
    if "xres" not in metadata:  # libvips invents a resolution
        at = len(SIGNATURE)
        for kind, body in chunks(png):
            if kind == b"pHYs":
                png = png[:at] + png[at + 12 + len(body) :]
            if kind in (b"pHYs", b"IDAT"):
                break
            at += 12 + len(body)
    added = (chunk(b"cICP", metadata["cicp"]) if "cicp" in metadata else b"") + metadata.get("png-light", b"")
    if block := metadata.get("exif-data"):
        added += chunk(b"eXIf", block)
    if packet := metadata.get("xmp-data"):
        added += chunk(b"iTXt", XMP + bytes(4) + packet)
    added += b"".join(map(comment, metadata.get("comments", ())))
    added += metadata.get("png-chunks", b"")
    if "png-srgb" in metadata:
        added += chunk(b"sRGB", metadata["png-srgb"])
    return with_chunks(png, added + metadata.get("png-texts", b""))


def comment(text: bytes) -> bytes:
    """Return the chunk for a comment of unknown encoding: UTF-8 if it is valid, otherwise Latin-1."""
    text = text.rstrip(b"\0").replace(b"\0", b" ")
    try:
        if not text.isascii() and text.decode():
            return chunk(b"iTXt", COMMENT.encode() + bytes(5) + text)
    except UnicodeDecodeError:
        pass
    return chunk(b"tEXt", COMMENT.encode() + b"\0" + text)


def with_chunks(png: bytes, added: bytes) -> bytes:
    """Insert chunks behind the header."""
    return b"".join((png[:HEADER_END], added, memoryview(png)[HEADER_END:])) if added else png


def frames(png: bytes) -> int:
    """Return the number of pictures of an animated PNG; 1 if it is none."""
    for kind, body in chunks(png):
        if kind == b"acTL" and len(body) == 8:
            return max(1, int.from_bytes(body[:4], "big"))
        if kind == b"IDAT":
            break
    return 1


def colours(png: bytes, icc: bytes | None) -> Metadata:
    """Return metadata for the colour space that the file states by cICP, its profile, or gAMA and cHRM."""
    stated: dict[bytes, bytes] = {}
    grey = png[25] in GREYS
    for kind, body in chunks(png):
        if kind == b"IDAT":
            break
        stated.setdefault(kind, body)
    numbers = stated.get(b"cICP", b"")
    if len(numbers) == 4 or icc is not None:
        return profiles.chosen(numbers if len(numbers) == 4 else None, icc, grey=grey, numbers_first=True)
    if b"sRGB" in stated:
        return {"png-srgb": stated[b"sRGB"]} if len(stated[b"sRGB"]) == 1 else {}
    if b"iCCP" in stated or len(stated.get(b"gAMA", b"")) != 4:
        return {}
    gamma = int.from_bytes(stated[b"gAMA"], "big") / 100_000
    if not 0.1 <= gamma <= 2:  # 1/2.2 is usual, 1 is linear light; what is beyond is a mistake
        return {}
    primaries = profiles.BT709
    if len(points := stated.get(b"cHRM", b"")) == 32:
        values = [value / 100_000 for value in struct.unpack(">8I", points)]
        white, *rest = zip(values[::2], values[1::2], strict=True)
        if profiles.are_plausible((*rest, white)):
            primaries = (*rest, white)
    return profiles.described(profiles.Colours(primaries, 1 / gamma), grey=grey)
