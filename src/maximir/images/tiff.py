"""EXIF and IPTC in TIFF files. EXIF is itself a small TIFF; libvips neither reads nor writes it in one.

A directory is a list of fields: what TIFF calls an IFD. Those that make no sense are left out, for they
come from strangers.
"""

from __future__ import annotations

import struct

import numpy as np

from maximir.images.decoded import Metadata

Directory = dict[int, tuple[int, int, bytes]]  # tag -> field type, count, little-endian values

PREFIX = b"Exif\0\0"  # of an EXIF blob where it stands in a JPEG
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes by type
IPTC = 33723
SUB_IFDS = (0x8769, 0x8825)  # EXIF, GPS
# Of a TIFF's own directory, the fields that describe the photograph rather than the pixels' layout:
# description, make, model, software, date, artist, host, copyright.
DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 33432)
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, CENTIMETRES = 282, 283, 296, 3
PHOTOMETRIC, YCBCR = 262, 6
PLANES, SEPARATE = 284, 2
COMPRESSION, JPEG = 259, 7
SUBSAMPLING = 530
SUBFILE_TYPE, SMALLER, MASK = 254, 1, 4
MAX_PAGES = 1000
MAX_FIELDS, MAX_FIELD = 512, 65_536  # what one directory may ask us to copy


def exif_of_tiff(data: bytes) -> bytes | None:
    """The EXIF blob that a JPEG would carry, or None."""
    try:
        first, subs = directories(data)
    except struct.error:
        return None
    kept = {t: first[t] for t in DESCRIPTIVE if t in first}
    if not kept and not any(subs.values()):
        return None
    body, start = pack(kept, subs, at=8)
    return PREFIX + struct.pack("<4sI", b"II*\0", start) + body


def add_to_tiff(tiff: bytes, exif: bytes | None, iptc: bytes | None) -> bytes:
    """`tiff` with a new first directory at its end: its own fields, EXIF, and IPTC (libvips cuts it)."""
    blob = exif_of_tiff(exif.removeprefix(PREFIX)) if exif else None
    extra, subs = directories(blob.removeprefix(PREFIX)) if blob else ({}, {})
    if iptc and not iptc.startswith(b"Photoshop"):
        extra[IPTC] = 7, len(iptc), iptc  # 7: bytes
    if not (extra or subs) or tiff[:4] != b"II*\0":
        return tiff
    own, _ = directories(tiff, limit=len(tiff))
    pad = len(tiff) % 2  # directories start at even offsets
    body, start = pack(extra | own, subs, at=len(tiff) + pad)
    return b"".join((tiff[:4], struct.pack("<I", start), memoryview(tiff)[8:], b"\0" * pad, body))


def is_exif(blob: bytes) -> bool:
    """Whether it begins as EXIF does: libraries drop what does not, without a word."""
    return blob.removeprefix(PREFIX).startswith((b"II*\0", b"MM\0*"))


def resolution(exif: bytes) -> Metadata:
    """As an EXIF blob has it, if it does."""
    try:
        first, _ = directories(exif.removeprefix(PREFIX))
        per_mm = 10 if first.get(RESOLUTION_UNIT, (3, 1, b"\2\0"))[2][:1] == bytes([CENTIMETRES]) else 25.4
        across, down = (struct.unpack("<II", first[tag][2]) for tag in (X_RESOLUTION, Y_RESOLUTION))
        x, y = across[0] / across[1] / per_mm, down[0] / down[1] / per_mm
    except (struct.error, KeyError, ZeroDivisionError):
        return {}
    return {"xres": x, "yres": y} if x > 0 and y > 0 else {}


def is_raw_ycbcr(data: bytes) -> bool:
    """Whether the channels are luma and chroma as libvips takes them for RGB: in planes, or of full size."""
    try:
        first, _ = directories(data)
    except struct.error:
        return False
    photometric, compression, planes = (
        int.from_bytes(first[tag][2][:2], "little") if tag in first else None
        for tag in (PHOTOMETRIC, COMPRESSION, PLANES)
    )
    full_size = first.get(SUBSAMPLING, (3, 2, b""))[2][:4] == b"\1\0\1\0"
    return photometric == YCBCR and (planes == SEPARATE or (full_size and compression != JPEG))


def pages(data: bytes) -> int:
    """How many pictures the file has, without what it calls smaller copies or masks of others."""
    if data[2:4] not in (b"*\0", b"\0*"):
        return MAX_PAGES  # BigTIFF: not followed
    order, seen, found = "<" if data[:2] == b"II" else ">", set[int](), 0
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        while at and at not in seen and len(seen) < MAX_PAGES:
            seen.add(at)
            _, _, value = unpack(data, order, at, MAX_FIELD).get(SUBFILE_TYPE, (4, 1, b"\0"))
            found += not value[0] & (SMALLER | MASK)
            (count,) = struct.unpack_from(order + "H", data, at)
            (at,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    except struct.error:  # the chain is cut
        pass
    return found


def without_thumbnail(exif: bytes) -> bytes:
    """`exif` ending after its first directory and what that points to: the second one has the thumbnail."""
    start = len(PREFIX) if exif.startswith(PREFIX) else 0
    order = "<" if exif[start : start + 2] == b"II" else ">"
    try:
        at = start + struct.unpack_from(order + "I", exif, start + 4)[0]
        end = at + 2 + 12 * struct.unpack_from(order + "H", exif, at)[0]
    except struct.error:
        return exif
    return exif[:end] + bytes(4) + exif[end + 4 :] if end + 4 <= len(exif) else exif


def directories(data: bytes, limit: int = MAX_FIELD) -> tuple[Directory, dict[int, Directory]]:
    """The first directory without its pointers to others, and those of EXIF and GPS by their tags."""
    order = "<" if data[:2] == b"II" else ">"
    first = unpack(data, order, struct.unpack_from(order + "I", data, 4)[0], limit)
    starts = {t: struct.unpack("<I", first.pop(t)[2])[0] for t in SUB_IFDS if t in first}
    return first, {t: unpack(data, order, start, limit) for t, start in starts.items()}


def unpack(data: bytes, order: str, start: int, limit: int) -> Directory:
    """The fields of the directory at `start`, without those that make no sense; struct.error if none do."""
    (count,) = struct.unpack_from(order + "H", data, start)
    fields: Directory = {}
    for at in range(start + 2, start + 2 + 12 * min(count, MAX_FIELDS), 12):
        tag, kind, n = struct.unpack_from(order + "HHI", data, at)
        size = SIZES.get(kind, 0) * n
        begin = at + 8 if size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        if 0 < size <= limit and begin + size <= len(data):
            value = data[begin : begin + size]
            unit = 4 if kind in (5, 10) else SIZES[kind]  # rationals are pairs of 4 bytes
            fields[tag] = kind, n, swapped(value, unit) if order == ">" else value
    return fields


def pack(first: Directory, subs: dict[int, Directory], at: int) -> tuple[bytes, int]:
    """Little-endian directories to stand at offset `at`, and the offset of the first one."""
    body = b""
    for tag, sub in subs.items():
        first = first | {tag: (4, 1, struct.pack("<I", at + len(body)))}
        body += directory(sub, at + len(body))
    return body + directory(first, at + len(body)), at + len(body)


def directory(fields: Directory, at: int) -> bytes:
    table, values = struct.pack("<H", len(fields)), b""
    end = at + 2 + 12 * len(fields) + 4
    for tag, (kind, n, value) in sorted(fields.items()):
        inline = value if len(value) <= 4 else struct.pack("<I", end + len(values))
        table += struct.pack("<HHI4s", tag, kind, n, inline)
        values += b"" if len(value) <= 4 else value + b"\0" * (len(value) % 2)
    return table + b"\0\0\0\0" + values


def swapped(value: bytes, unit: int) -> bytes:
    return np.frombuffer(value, np.uint8).reshape(-1, unit)[:, ::-1].tobytes()
