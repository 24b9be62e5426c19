"""Parts of a JPEG that libvips does not report."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator

from maximir.images.codecs import png, tiff
from maximir.images.metadata import exif, ifd, iptc, xmp
from maximir.images.metadata.fields import Metadata

END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN = 0xDA
HUFFMAN = (0xC0, 0xC1, 0xC2)  # frames of such codes: every block takes one bit at least
APP0, APP1, APP2, APP11, APP13, APP14, APP15, COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xEF, 0xFE
# Segments that are about how the file is written (as is APP14), or that libvips carries; JFXX has thumbnails.
WRITERS = (b"JFIF\0", b"JFXX\0", b"ICC_PROFILE\0", b"MPF\0", b"Ducky", b"urn:iso:std:iso:ts:21496")
JUMBF = b"JP"  # boxes of JPEG's further parts: above all signatures, which hold only for the original pixels
LONG_FIELDS = {tiff.MAKER_NOTE: "maker notes", 0x9286: "EXIF's comment"}
MOST_EXIF = 4 * 2**20  # bytes of a block in several segments
MOST_BEHIND = 64  # bytes behind the picture that need no note
XMP, MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
MOST = 65_533  # bytes of a segment
PER_MM = {1: 25.4, 2: 10.0}  # units of JFIF
ENTRIES = 0xB002  # of the directory of pictures
LARGE_THUMBNAILS = (0x010001, 0x010002)
GAIN_MAPS = (b"urn:iso:std:iso:ts:21496:-1", b"hdrgm:Version", b"HDRGainMap:HDRGainMapVersion")
VIDEOS = (b"MotionPhoto=", b"MicroVideo=", b"GCamera:MotionPhoto>", b"GCamera:MicroVideo>")


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of the segments before the first scan, then its marker and all after it."""
    at = 2
    while at + 4 <= len(jpeg):
        if jpeg[at] != 0xFF:
            return
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == START_OF_SCAN:
            yield marker, jpeg[at + 2 + length :]
            return
        yield marker, jpeg[at + 4 : at + 2 + length]
        at += 2 + length


def is_cut(jpeg: bytes) -> bool:
    """Return whether the file is too short for its size. libjpeg would invent the rest, and only warn."""
    for marker, body in segments(jpeg):
        if marker in HUFFMAN and len(body) > 5:
            height, width = struct.unpack_from(">HH", body, 1)
            return bool(len(jpeg) * 8 < height * width // 64)
    return False


def notes(jpeg: bytes) -> tuple[str, ...]:
    """Return notes on pictures and videos besides the first picture."""
    found, listed, pictures, gain_map, video, behind = [], False, 1, False, False, 0
    for marker, body in segments(jpeg):
        if marker in (APP1, APP2):
            gain_map |= any(mark in body for mark in GAIN_MAPS)
            video |= any(mark in body for mark in VIDEOS)
        if marker == APP2 and body.startswith(b"MPF\0"):
            listed, pictures = True, max(pictures, len(entries(body[4:])))
        if marker == START_OF_SCAN:
            # In a scan 0xFF is followed by 0 or by a marker, so this is the end, or a coincidence in a table.
            end = body.find(END_OF_IMAGE)
            behind = len(body[end + 2 :].rstrip(b"\0")) if end >= 0 else 0
            video &= end >= 0 and b"ftyp" in body[end:]
    if gain_map and pictures > 1:
        found.append("gain map for HDR left out")
    elif pictures > 1:
        found.append(f"first of {pictures} pictures")
    if video:
        found.append("video left out")
    if behind > MOST_BEHIND and not found and not listed:  # a large thumbnail needs no note
        found.append(f"{behind:,} bytes behind the picture left out")
    return tuple(found)


def entries(directory: bytes) -> list[int]:
    """Return the kinds of the pictures in a file of several, without thumbnails."""
    try:
        reader = ifd.Reader(directory)
        fields, _ = reader.directory(reader.first())
    except struct.error:
        return []
    table = next((reader.value(field) for field in fields if field.tag == ENTRIES), b"")
    kinds = (
        struct.unpack_from(reader.order + "I", table, at)[0] & 0xFFFFFF
        for at in range(0, len(table) - 15, 16)
    )
    return [kind for kind in kinds if kind not in LARGE_THUMBNAILS]


def described(jpeg: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """Return the picture's metadata, and notes on damaged parts of it."""
    found: Metadata = {}
    resources: list[bytes] = []
    comments: list[bytes] = []
    others, signed = bytearray(), False
    extensions: dict[bytes, list[tuple[int, int, bytes]]] = {}
    for marker, body in segments(jpeg):
        if marker == APP0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            if unit in PER_MM:
                found |= exif.sensible(x / PER_MM[unit], y / PER_MM[unit])
        elif marker == APP1 and body.startswith(exif.PREFIX):
            block = body[len(exif.PREFIX) :]
            if "exif-data" not in found:
                found["exif-data"] = block
            elif not exif.is_exif(block) and len(found["exif-data"]) < MOST_EXIF:
                found["exif-data"] += block  # some programs continue a long block in the next segment
        elif marker == APP1 and body.startswith(XMP):
            found.setdefault("xmp-data", body[len(XMP) :])
        elif marker == APP1 and body.startswith(MORE_XMP) and len(body) >= len(MORE_XMP) + 40:
            guid, length, at = struct.unpack_from(">32sII", body, len(MORE_XMP))
            extensions.setdefault(guid.upper(), []).append((at, length, body[len(MORE_XMP) + 40 :]))
        elif marker == APP13 and body.startswith(iptc.PHOTOSHOP):
            resources.append(body[len(iptc.PHOTOSHOP) :])
        elif marker == COMMENT and body.rstrip(b"\0"):
            comments.append(body)
        elif marker == APP11 and body.startswith(JUMBF):
            signed = True
        elif APP0 <= marker <= APP15 and marker != APP14 and not body.startswith(WRITERS):
            others += segment(marker, body)
    if resources:
        found["iptc-data"] = iptc.PHOTOSHOP + b"".join(resources)
    if comments:
        found["comments"] = tuple(comments)
    if others:
        found["jpeg-segments"] = bytes(others)
    said = (png.CREDENTIALS_NOTE,) if signed else ()
    packet = found.get("xmp-data", b"")
    if (guid := xmp.extended_by(packet)) is None:
        return found, said
    extension = _assembled(extensions.get(guid, []))
    if extension and (whole := xmp.joined(packet, extension)) is not None:
        found["xmp-data"] = whole
        return found, said
    found["xmp-data"] = xmp.unextended(packet)
    return found, (*said, "damaged second part of XMP left out")


def _assembled(parts: list[tuple[int, int, bytes]]) -> bytes:
    """Join an extension of XMP from its segments; return nothing if one is missing."""
    whole = bytearray()
    for at, _, data in sorted(parts):
        if at == len(whole):  # others are repeated
            whole += data
    return bytes(whole) if parts and len(whole) == parts[0][1] else b""


def with_metadata(jpeg: bytes, metadata: Metadata) -> tuple[bytes, tuple[str, ...]]:
    """Add segments for the metadata to `jpeg`; return it with notes on what is too long for them."""
    added, notes = _resolution(metadata), []
    if block := metadata.get("exif-data"):
        fitting, said = _fitting(block)
        added += segment(APP1, exif.PREFIX + fitting) if fitting else b""
        notes += said
    if packet := metadata.get("xmp-data"):
        if (parts := xmp.split(packet)) is None:
            notes.append(f"XMP of {len(packet):,} bytes left out, too long for JPEG")
        else:
            added += segment(APP1, XMP + parts[0]) + _extension(parts[1])
    if blob := metadata.get("iptc-data"):
        resources = iptc.wrapped(blob)[len(iptc.PHOTOSHOP) :]
        step = MOST - len(iptc.PHOTOSHOP)
        for at in range(0, len(resources), step):
            added += segment(APP13, iptc.PHOTOSHOP + resources[at : at + step])
    added += metadata.get("jpeg-segments", b"")
    for comment in metadata.get("comments", ()):
        for at in range(0, len(comment), MOST):
            added += segment(COMMENT, comment[at : at + MOST])
    at = 2
    if jpeg[2:4] == bytes((0xFF, APP0)):  # libvips's resolution
        at += 2 + int.from_bytes(jpeg[4:6], "big")
    return b"".join((jpeg[:2], added, memoryview(jpeg)[at:])), tuple(notes)


def _fitting(block: bytes) -> tuple[bytes, list[str]]:
    """Shorten an EXIF block to the length of a segment; return it with notes on what was left out."""
    room = MOST - len(exif.PREFIX)
    if len(block) <= room:
        return block, []
    try:
        shorter = tiff.shortened(block, room)
    except struct.error:
        shorter = None
    if shorter is None:
        return b"", [f"EXIF of {len(block):,} bytes left out, too long for JPEG"]
    kept, left_out, notes = shorter
    gone = ", ".join(LONG_FIELDS.get(tag, f"EXIF's field 0x{tag:04X}") for tag in left_out)
    return kept, [f"{gone} left out, too long for JPEG"] * bool(gone) + notes


def names(others: bytes) -> str:
    """Return the names at the beginning of segments: "FLIR, CIFF"."""
    found = []
    for _, body in segments(b"\xff\xd8" + others):
        match = re.match(rb"[ -~]{2,16}", body)
        found.append(match[0].decode().strip() if match else "nameless")
    return ", ".join(dict.fromkeys(found[:20]))


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _extension(packet: bytes) -> bytes:
    """Return segments for the second part of XMP."""
    guid = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper().encode()
    step = MOST - len(MORE_XMP) - 40
    return b"".join(
        segment(APP1, MORE_XMP + struct.pack(">32sII", guid, len(packet), at) + packet[at : at + step])
        for at in range(0, len(packet), step)
    )


def _resolution(metadata: Metadata) -> bytes:
    """Return a JFIF segment, or nothing if EXIF states the same. Without a resolution, pixels are square."""
    stated = exif.resolution(metadata.get("exif-data", b""))
    x, y = metadata.get("xres", 0.0), metadata.get("yres", 0.0)
    if stated and (not x or exif.agree(stated, metadata)):
        return b""
    unit, densities = 0, (1, 1)
    for kind, per_mm in PER_MM.items():  # inches, or centimetres if more exact
        rounded = round(x * per_mm), round(y * per_mm)
        if all(0 < value < 2**16 for value in rounded) and (
            unit == 0 or abs(x * per_mm - rounded[0]) + 1e-3 < abs(x * 25.4 - densities[0])
        ):
            unit, densities = kind, rounded
    return segment(APP0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0102, unit, *densities, 0, 0))
