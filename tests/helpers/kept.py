"""A photograph about which everything is said, and what of that arrives in a file of each format.

`table()` is what stands in docs/files.md; `python scripts/metadata.py` puts it there.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ImageCms

from helpers.malformed import smooth
from maximir import images
from maximir.images import Photo
from maximir.images.codecs import jpeg
from maximir.images.codecs.png import chunk
from maximir.images.metadata import exif, ifd, iptc
from maximir.images.metadata.fields import Metadata

EXIFTOOL = shutil.which("exiftool")
KINDS = {"JPEG": "jpeg", "PNG": "png", "TIFF": "tiff", "WebP": "webp", "AVIF": "avif"}
KEPT, SAID = "kept", "reported"
ELSEWHERE = b"what the maker's notes point to"
THUMBNAIL = b"\xff\xd8\xff\xe0 the picture as it was \xff\xd9"
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:source>%s</dc:source></rdf:Description>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
RECORDS = b"\x1c\x02\x78\x00\x05hello"
PATHS = b"8BIM\x07\xd0\0\0" + struct.pack(">I", 4) + b"path"

Value = tuple[int, int, bytes]  # field type, count, bytes


def block(
    order: str = "<", orientation: int = 6, size: tuple[int, int] = (56, 40), late: bool = True, more: int = 0
) -> bytes:
    """An EXIF block with fields that libraries do not know, and notes that point to places in the block.

    Args:
        size: width and height, as stored.
        more: bytes of the notes themselves.
        late: the thumbnail stands at the end; otherwise before what the notes point to.
    """

    def short(*values: int) -> Value:
        return 3, len(values), struct.pack(f"{order}{len(values)}H", *values)

    def long(*values: int) -> Value:
        return 4, len(values), struct.pack(f"{order}{len(values)}I", *values)

    def ratio(*values: int, kind: int = 5) -> Value:
        return (
            kind,
            len(values) // 2,
            struct.pack(f"{order}{len(values)}{'I' if kind == 5 else 'i'}", *values),
        )

    def text(value: str, kind: int = 2) -> Value:
        return kind, len(value.encode()) + 1, value.encode() + b"\0"

    body = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))

    def put(value: bytes) -> int:
        body.extend(bytes(len(body) % 2))
        body.extend(value)
        return len(body) - len(value)

    def directory(fields: dict[int, Value], following: int = 0) -> int:
        values = {tag: put(value) if len(value) > 4 else None for tag, (_, _, value) in fields.items()}
        table = struct.pack(order + "H", len(fields))
        for tag, (kind, n, value) in sorted(fields.items()):
            place = values[tag]
            inline = value.ljust(4, b"\0") if place is None else struct.pack(order + "I", place)
            table += struct.pack(order + "HHI", tag, kind, n) + inline
        return put(table + struct.pack(order + "I", following))

    def thumbnail() -> int:
        at = put(THUMBNAIL)
        return directory({0x0103: short(6), 0x0201: long(at), 0x0202: long(len(THUMBNAIL))})

    early = 0 if late else thumbnail()
    maker = b"MAKR" + struct.pack(order + "I", put(ELSEWHERE)) + bytes(12 + more)
    interop = directory({1: text("R98")})
    gps = directory({1: text("N"), 2: ratio(10, 1, 20, 1, 30, 1)})
    inner = directory(
        {
            0x9000: (7, 4, b"0300"),
            0x9003: text("2019:01:02 03:04:05"),
            0x9214: short(10, 20, 4, 6),
            0x927C: (7, len(maker), maker),
            0x9400: ratio(-7, 2, kind=10),
            0x9402: ratio(101, 1),
            0xA002: long(size[0]),
            0xA003: short(size[1]),
            0xA005: long(interop),
            0xA434: text("Lens"),
            0xA436: text("Bild von 名前", kind=129),
        }
    )
    first = {
        0x010F: text("Maker"),
        0x0112: short(orientation),
        0x011A: ratio(240, 1),
        0x011B: ratio(240, 1),
        0x0128: short(2),
        0x013C: text("Host of it"),
        0x4746: short(5),
        0x4749: short(99),
        0x8769: long(inner),
        0x8825: long(gps),
        0x9C9B: (1, 8, "Titel".encode("utf-16-le")[:8]),
        0xC614: text("Unique Camera"),
        0xEA1C: (7, 12, bytes(range(12))),
        0xFDE8: text("light room"),
    }
    start = directory(first)
    struct.pack_into(order + "I", body, 4, start)
    if following := thumbnail() if late else early:
        struct.pack_into(order + "I", body, start + 2 + 12 * len(first), following)
    return bytes(body)


def fields(data: bytes) -> dict[tuple[int, int], bytes]:
    """Values by directory and tag, little-endian; of a block or of a TIFF. Pointers are left out."""
    reader = ifd.Reader(data)
    found: dict[tuple[int, int], bytes] = {}
    waiting = [(0, reader.first())]
    while waiting:
        name, start = waiting.pop()
        for field in reader.directory(start)[0]:
            if field.tag in (exif.EXIF, exif.GPS, exif.INTEROP):
                waiting.append((field.tag, reader.numbers(field)[0]))
                continue
            value = reader.value(field)
            unit = 4 if field.kind in (5, 10) else ifd.SIZES[field.kind]
            if reader.order == ">":
                value = np.frombuffer(value, np.uint8).reshape(-1, unit)[:, ::-1].tobytes()
            found[name, field.tag] = value
    return found


def pointed_to(data: bytes) -> bytes:
    """What the maker's notes find where they point to."""
    notes = fields(data)[exif.EXIF, 0x927C]
    at = struct.unpack(("<" if data[:1] == b"I" else ">") + "I", notes[4:8])[0]
    return data[at : at + len(ELSEWHERE)]


def everything(order: str = "<") -> Metadata:
    return {
        "icc-profile-data": ICC,
        "exif-data": block(order),
        "xmp-data": XMP % b"here",
        "iptc-data": iptc.wrapped(RECORDS) + PATHS,
        "xres": 300 / 25.4,
        "yres": 300 / 25.4,
        "comments": (b"scanned by me",),
        "jpeg-segments": jpeg.segment(0xEC, b"Maker's own\0 data"),
        "png-texts": chunk(b"tEXt", b"Title\0hello"),
    }


def block_in(data: bytes, kind: str) -> bytes:
    """What offsets of EXIF count from: the block, or the TIFF as a whole."""
    return data if kind == "tiff" else images.decode(data).metadata.get("exif-data", b"")


def _exif(*wanted: tuple[int, int]) -> Callable[[bytes, str], bool]:
    def arrived(data: bytes, kind: str) -> bool:
        before, after = fields(block()), fields(block_in(data, kind))
        return all(after.get(field) == before[field] for field in wanted)

    return arrived


def _blob(name: str, part: bytes) -> Callable[[bytes, str], bool]:
    return lambda data, kind: part in images.decode(data).metadata.get(name, b"")  # type: ignore[operator]


def _resolution(data: bytes, kind: str) -> bool:
    return abs(images.decode(data).metadata.get("xres", 0) * 25.4 - 300) < 0.1


LONG = b"so long " * 12_500
E0, E1 = 0, exif.EXIF
# Of each kind of metadata: what a photograph has of it besides the rest, and whether a file has it.
ROWS: dict[str, tuple[Metadata, Callable[[bytes, str], bool]]] = {
    "colour profile": ({}, lambda data, kind: images.decode(data).metadata.get("icc-profile-data") == ICC),
    "EXIF: camera, dates, lens": ({}, _exif((E0, 0x010F), (E1, 0x9003), (E1, 0xA434), (exif.INTEROP, 1))),
    "EXIF: GPS": ({}, _exif((exif.GPS, 1), (exif.GPS, 2))),
    "EXIF: ratings, Lightroom's, Windows', unknown tags": (
        {},
        _exif(*((E0, tag) for tag in (0x4746, 0x4749, 0x013C, 0xC614, 0xFDE8, 0x9C9B, 0xEA1C))),
    ),
    "EXIF 2.31 and 3.0 (UTF-8)": ({}, _exif((E1, 0x9400), (E1, 0x9402), (E1, 0xA436))),
    "maker notes, and what they point to": (
        {},
        lambda data, kind: _exif((E1, 0x927C))(data, kind) and pointed_to(block_in(data, kind)) == ELSEWHERE,
    ),
    "maker notes of more than 64 kB": (
        {"exif-data": block(more=90_000)},
        lambda data, kind: len(fields(block_in(data, kind)).get((E1, 0x927C), b"")) > 90_000,
    ),
    "EXIF beside these": (
        {"exif-data": block(more=90_000)},
        _exif((E0, 0x010F), (E0, 0x4746), (E1, 0x9003), (E1, 0xA436), (exif.GPS, 2), (exif.INTEROP, 1)),
    ),
    "XMP": ({}, _blob("xmp-data", b'xmp:Rating="4"')),
    "XMP of more than 64 kB": ({"xmp-data": XMP % LONG}, _blob("xmp-data", LONG)),
    "IPTC": ({}, lambda data, kind: iptc.bare(images.decode(data).metadata.get("iptc-data", b"")) == RECORDS),
    "Photoshop's resources": ({}, _blob("iptc-data", PATHS)),
    "resolution, where EXIF has another": ({}, _resolution),
    "resolution, without EXIF": ({"exif-data": b""}, _resolution),
    "comment": (
        {},
        lambda data, kind: b"scanned by me" in data,
    ),
    "other segments of a JPEG": ({}, lambda data, kind: b"Maker's own\0 data" in data),
    "PNG's texts": ({}, _blob("png-texts", b"Title\0hello")),
}
# What a note on each kind begins with, or has in it.
WORDS = {
    "maker": "maker notes",
    "EXIF": "EXIF",
    "XMP": "XMP",
    "IPTC": "IPTC",
    "Photoshop's": "IPTC",
    "resolution,": "resolution",
    "comment": "comment",
    "PNG's": "texts",
    "other": "Maker's own",
}


def cell(row: str, kind: str, notes_before: tuple[str, ...] = (), photo: Photo | None = None) -> str:
    """Whether what the row is about arrives in a file of this kind, or is said not to.

    Raises:
        AssertionError: it is lost without a word.
    """
    more, arrived = ROWS[row]
    if photo is None:
        metadata = {name: value for name, value in (everything() | more).items() if value}
        photo = Photo(smooth(56, 40), metadata=metadata)  # type: ignore[arg-type]
    data, notes = images.encode(photo, kind)
    if arrived(data, kind):
        return KEPT
    word = WORDS.get(row.split()[0].removesuffix(":"), row.split()[0])
    if photo.metadata.get("png-texts", b"").count(b"Comment"):  # a PNG has it among its texts
        word = word.replace("comment", "texts")
    assert any(word in note for note in (*notes_before, *notes)), (
        f"{row} in {kind}: lost, and only {notes} said"
    )
    return SAID


def table() -> str:
    lines = [f"| | {' | '.join(KINDS)} |", "| --- " * (len(KINDS) + 1) + "|"]
    for row in ROWS:
        lines.append(f"| {row} | {' | '.join(cell(row, kind) for kind in KINDS.values())} |")
    return "\n".join(lines) + "\n"


def by_exiftool(data: bytes, path: Path) -> dict[str, object]:
    """What ExifTool reads in a file, by group and name."""
    assert EXIFTOOL is not None
    path.write_bytes(data)
    command = [EXIFTOOL, "-json", "-G1", "-a", "-s", "-u", "-charset", "exif=utf8", str(path)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return dict(json.loads(done.stdout)[0])
