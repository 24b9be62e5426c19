"""EXIF and XMP of camera raw files, wherever the maker put them.

Many are TIFFs, or nearly, and their fields become an EXIF block. Others have a JPEG inside, with a block that
is kept as it is, or boxes with a directory in each.
"""

from __future__ import annotations

import struct

from maximir.images.codecs import heif, jpeg, tiff
from maximir.images.metadata import exif, ifd, xmp
from maximir.images.metadata.fields import Metadata

CAMERA_RAW = b"http://ns.adobe.com/camera-raw-settings/1.0/"  # how to develop: done
SETTINGS_GONE = "XMP with settings for developing left out"
NOT_FOUND = "EXIF left out, which is not found in this kind of file"
RAF_JPEG = 84  # place of the offset and length of the JPEG in a RAF
RW2_JPEG = 0x2E  # tag of the JPEG in a RW2
CANON = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")  # box of a CR3
# Tags of the sensor, not of the picture: makers' own ones, TIFF/EP's colour filters, all of DNG's but names,
# serial number and lens.
DNG, DNG_NAMES = range(50706, 52600), (50708, 50709, 50735, 50736, 50827)
SENSOR = (33421, 33422, 37398, 37399, 50656, 46275)


def described(data: bytes, called: str) -> tuple[Metadata, tuple[str, ...]]:
    """Return the metadata of a raw file of the kind `called`, and notes on what of it is not kept."""
    try:
        found, notes = _found(data, called)
    except struct.error:
        found, notes = {}, ()
    if "exif-data" not in found:
        notes = (*notes, NOT_FOUND)
    if packet := found.get("xmp-data"):
        found["xmp-data"] = xmp.without(packet, CAMERA_RAW, xmp.NAME)
        notes = (*notes, SETTINGS_GONE) if found["xmp-data"] != packet else notes
    return found, notes


def _found(data: bytes, called: str) -> tuple[Metadata, tuple[str, ...]]:
    if data.startswith(b"FUJI"):
        start, length = struct.unpack_from(">II", data, RAF_JPEG)
        return _of_jpeg(data[start : start + length])
    if called == "Canon CR3":
        return _of_boxes(data)
    if data[:2] not in (b"II", b"MM"):
        return {}, ()
    data = (b"II*\0" if data[:1] == b"I" else b"MM\0*") + data[4:] if data[:4] not in ifd.STARTS else data
    reader = ifd.Reader(data)
    fields, _ = reader.directory(reader.first())
    if jpegs := [field for field in fields if field.tag == RW2_JPEG]:
        return _of_jpeg(reader.value(jpegs[0]))
    return tiff.described_raw(data, frozenset(field.tag for field in fields if _is_of_sensor(field.tag)))


def _is_of_sensor(tag: int) -> bool:
    return tag < 254 or tag in SENSOR or (tag in DNG and tag not in DNG_NAMES)


def _of_jpeg(data: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """Return EXIF and XMP of the camera's own JPEG."""
    found, _ = jpeg.described(data)
    kept: Metadata = {}
    if block := found.get("exif-data"):
        kept["exif-data"] = block
    if packet := found.get("xmp-data"):
        kept["xmp-data"] = packet
    return kept, ()


def _of_boxes(data: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """Join the directories of a CR3, each a TIFF in a box: the first, EXIF, GPS. Maker notes are another."""
    for name, start, end in heif.boxes(data, 0, len(data)):
        if name != b"moov":
            continue
        for below, inner, inner_end in heif.boxes(data, start, end):
            if below == b"uuid" and data[inner : inner + 16] == CANON:
                parts = {kind: data[a:b] for kind, a, b in heif.boxes(data, inner + 16, inner_end)}
                if b"CMT1" not in parts:
                    return {}, ()
                under = {exif.EXIF: parts.get(b"CMT2", b""), exif.GPS: parts.get(b"CMT4", b"")}
                return {"exif-data": tiff.joined(parts[b"CMT1"], under)}, ("maker notes left out",)
    return {}, ()
