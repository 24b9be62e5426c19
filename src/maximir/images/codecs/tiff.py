"""TIFF files: what they say about the picture, which libvips neither reads nor writes.

An EXIF block is a small TIFF itself, so it becomes the beginning of the file that is written: nothing in it
moves.
"""

from __future__ import annotations

import contextlib
import struct
from typing import NamedTuple

import numpy as np

from maximir.images.metadata import exif, ifd, iptc
from maximir.images.metadata.fields import Metadata

XMP, IPTC, PHOTOSHOP = 700, 33723, 34377
PHOTOMETRIC, YCBCR = 262, 6
PLANES, SEPARATE = 284, 2
COMPRESSION, JPEG = 259, 7
SUBSAMPLING = 530
PREDICTOR, HORIZONTAL = 317, 2
STRIPS, TILES = 273, 324  # offsets into the file
RESOLUTION = (282, 283, 296)
WIDTH, HEIGHT, SUB_IFDS = 256, 257, 330
SUBFILE_TYPE, SMALLER, MASK = 254, 1, 4
OLD_SUBFILE_TYPE, OLD_SMALLER = 255, 2
BELOW = 1 << 20  # ours: not a page, but below one
# Of a directory, the fields that say how pixels are stored, or that are carried in another way.
# fmt: off
LAYOUT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 288, 289,
    290, 291, 292, 293, 300, 301, 317, 320, 321, 322, 323, 324, 325, 326, 327, 328, 330, 332, 333, 334, 336,
    338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 351, 400, 401, 402, 403, 404, 405, 433, 434, 435, 437,
    512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559, 32995, 32996, 32997, 32998, 34675,
    37724, 50674, 50706, 50707, XMP, IPTC, PHOTOSHOP, exif.EXIF, exif.GPS, exif.INTEROP, *RESOLUTION,
))
# fmt: on
MAKER_NOTE = 0x927C
SAMPLES, EXTRA_SAMPLES = 277, 338
# A channel behind the colours; alpha that they are multiplied by, or not.
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}  # channels by photometric
MAX_PAGES = 1000
MOST_LEFT_OUT = 8  # fields, for a block to fit
MAX_FIELDS, MAX_FIELD, MAX_FIELDS_BYTES = 512, 2**20, 4 * 2**20  # what we copy of a directory
NOT_COPIED = "some fields of the TIFF left out, too long or too many"
MOVED = "maker notes moved: what they point to in the file may not be found"


class Entry(NamedTuple):
    """A field with its value's bytes, in the file's byte order."""

    kind: int
    n: int
    value: bytes


Directory = dict[int, Entry]


def described(data: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """What the file says about the picture of its first directory, and notes on what of it is not carried."""
    try:
        reader = ifd.Reader(data)
        fields, _ = reader.directory(reader.first())
    except struct.error:
        return {}, ()
    notes: list[str] = []
    found = _extra_sample(reader, fields)
    blobs = {field.tag: reader.value(field) for field in fields if field.tag in (XMP, IPTC, PHOTOSHOP)}
    if packet := blobs.get(XMP):
        found["xmp-data"] = packet
    if records := blobs.get(IPTC, b"").rstrip(b"\0"):
        found["iptc-data"] = records
    if resources := blobs.get(PHOTOSHOP):
        whole = iptc.PHOTOSHOP + resources
        if records and not iptc.bare(whole):
            whole += iptc.wrapped(records)[len(iptc.PHOTOSHOP) :]
        found["iptc-data"] = whole
    if block := _block(reader, fields, notes):
        found |= exif.resolution(block)
        tags = {field.tag for field in fields} - LAYOUT
        if tags or ifd.numbers(reader, fields, exif.EXIF, exif.GPS):  # otherwise it would be invented
            found["exif-data"] = block
    return found, tuple(dict.fromkeys(notes))


def _extra_sample(reader: ifd.Reader, fields: list[ifd.Field]) -> Metadata:
    """What kind the last channel is, if there is one behind the colours, and it is not usual alpha."""
    values = ifd.numbers(reader, fields, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES)
    colours = COLOURS.get(values.get(PHOTOMETRIC, (-1,))[0], 0)
    if not colours or values.get(SAMPLES, (1,))[0] <= colours:
        return {}
    (kind, *_) = values.get(EXTRA_SAMPLES, (UNSPECIFIED,))
    return {} if kind == UNASSOCIATED else {"extra-sample": min(kind, ASSOCIATED)}


def multiplied(pixels: np.ndarray) -> np.ndarray:
    """[H, W, C] with the colours multiplied by alpha, rounded: libvips divides by it on reading."""
    full = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.uint32)
    result = ((pixels * alpha + full // 2) // full).astype(pixels.dtype)
    result[..., -1:] = pixels[..., -1:]
    return result


def shortened(block: bytes, limit: int) -> tuple[bytes, tuple[int, ...]] | None:
    """An EXIF block made anew to have at most `limit` bytes, and the tags of what had to go, longest first.

    None: it cannot be.
    """
    reader = ifd.Reader(block)
    fields, _ = reader.directory(reader.first())
    found = list(fields)
    for start in ifd.numbers(reader, fields, exif.EXIF, exif.GPS).values():
        with contextlib.suppress(struct.error):
            found += reader.directory(start[0])[0]
    longest = sorted(found, key=lambda field: field.size, reverse=True)[:MOST_LEFT_OUT]
    for count in range(len(longest) + 1):
        left_out = tuple(dict.fromkeys(field.tag for field in longest[:count]))
        notes: list[str] = []
        packed = _block(reader, fields, notes, frozenset(left_out))
        if packed and len(packed) <= limit and set(notes) <= {MOVED}:
            return packed, left_out
    return None


def _block(
    reader: ifd.Reader,
    fields: list[ifd.Field],
    notes: list[str],
    left_out: frozenset[int] = frozenset(),
) -> bytes:
    """An EXIF block of the descriptive fields and the directories of EXIF, GPS and interoperability."""
    first = _copied(reader, fields, notes, LAYOUT - set(RESOLUTION) | left_out)
    body = bytearray(b"II*\0" if reader.order == "<" else b"MM\0*") + bytes(4)
    pointers = ifd.numbers(reader, fields, exif.EXIF, exif.GPS)
    for tag in (exif.EXIF, exif.GPS):
        if tag not in pointers:
            continue
        try:
            below, _ = reader.directory(pointers[tag][0])
            directory = _copied(reader, below, notes, {exif.INTEROP} | left_out)
            if tag == exif.EXIF and (inner := ifd.numbers(reader, below, exif.INTEROP)):
                interop, _ = reader.directory(inner[exif.INTEROP][0])
                at = _append(body, reader.order, _copied(reader, interop, notes, set()))
                directory[exif.INTEROP] = Entry(ifd.LONG, 1, struct.pack(reader.order + "I", at))
        except struct.error:
            notes.append("damaged EXIF left out")
            continue
        if MAKER_NOTE in directory:
            notes.append(MOVED)
        first[tag] = Entry(
            ifd.LONG, 1, struct.pack(reader.order + "I", _append(body, reader.order, directory))
        )
    if not first:
        return b""
    struct.pack_into(reader.order + "I", body, 4, _append(body, reader.order, first))
    return bytes(body)


def _copied(
    reader: ifd.Reader, fields: list[ifd.Field], notes: list[str], left_out: frozenset[int] | set[int]
) -> Directory:
    found: Directory = {}
    total = 0
    for field in fields:
        if field.tag in left_out or field.tag in found or field.kind in (16, 17, 18):  # BigTIFF's own
            continue
        total += field.size
        if field.size > MAX_FIELD or total > MAX_FIELDS_BYTES or len(found) == MAX_FIELDS:
            notes.append(NOT_COPIED)
            total -= field.size
            continue
        found[field.tag] = Entry(field.kind, field.n, reader.value(field))
    return found


def _append(body: bytearray, order: str, directory: Directory) -> int:
    """Put a directory at the end; where it begins."""
    body += bytes(len(body) % 2)
    start = len(body)
    table = struct.pack(order + "H", len(directory))
    values = bytearray()
    end = start + 2 + 12 * len(directory) + 4
    for tag, (kind, count, value) in sorted(directory.items()):
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", end + len(values))
        table += struct.pack(order + "HHI4s", tag, kind, count, inline)
        if len(value) > 4:
            values += value + bytes(len(value) % 2)
    body += table + bytes(4) + values
    return start


def byte_order(metadata: Metadata) -> str:
    """Of the file that is to carry an EXIF block, as of `struct`."""
    return ">" if metadata.get("exif-data", b"").startswith(b"MM") else "<"


def differences(pixels: np.ndarray) -> np.ndarray:
    """16-bit samples as the horizontal predictor stores them, big-endian, as libvips does not write them."""
    stored = pixels.copy()
    stored[:, 1:] -= pixels[:, :-1]
    return stored.byteswap()


def with_metadata(
    tiff: bytes, metadata: Metadata, *, predicted: bool = False
) -> tuple[bytes, tuple[str, ...]]:
    """`tiff`, as libvips writes it, behind the EXIF block and with one directory for both; and notes.

    Args:
        predicted: the samples are `differences`.
    """
    order, notes = byte_order(metadata), []
    block = bytearray(metadata.get("exif-data") or b"II*\0" + bytes(4))
    block += bytes(len(block) % 2)
    reader = ifd.Reader(tiff)
    fields, _ = reader.directory(reader.first())
    own: Directory = {}
    for field in fields:
        value, unit = reader.value(field), 4 if field.kind in (5, 10) else ifd.SIZES[field.kind]
        if field.tag in (STRIPS, TILES):  # the file's bytes come behind the block
            moved = (at + len(block) - 8 for at in reader.numbers(field))
            own[field.tag] = Entry(ifd.LONG, field.n, struct.pack(f"{order}{field.n}I", *moved))
        else:
            own[field.tag] = Entry(field.kind, field.n, value if order == "<" else swapped(value, unit))
    stated = exif.resolution(metadata.get("exif-data", b""))
    if "xres" not in metadata or exif.agree(stated, metadata):  # libvips invents some
        for tag in RESOLUTION:
            own.pop(tag, None)
    if predicted:
        own[PREDICTOR] = Entry(ifd.SHORT, 1, struct.pack(order + "H", HORIZONTAL))
    if "extra-sample" in metadata and EXTRA_SAMPLES in own:
        own[EXTRA_SAMPLES] = Entry(ifd.SHORT, 1, struct.pack(order + "H", metadata["extra-sample"]))
    if packet := metadata.get("xmp-data"):
        own[XMP] = Entry(1, len(packet), packet)
    if blob := metadata.get("iptc-data"):
        if records := iptc.bare(blob):
            own[IPTC] = Entry(7, len(records), records)
        if blob.startswith(iptc.PHOTOSHOP):
            resources = blob[len(iptc.PHOTOSHOP) :]
            own[PHOTOSHOP] = Entry(7, len(resources), resources)
    theirs: dict[int, bytes] = {}
    if "exif-data" in metadata:
        try:
            besides = (exif.EXIF, exif.GPS, XMP, IPTC, PHOTOSHOP, *(RESOLUTION if stated else ()))
            theirs, whole = _entries(block, own, besides)
            if not whole:
                notes.append("damaged fields of EXIF left out")
        except struct.error:
            notes.append("damaged EXIF left out")
    body = bytearray(block) + memoryview(tiff)[8 : reader.first()]  # which libtiff writes behind the pixels
    struct.pack_into(order + "I", body, 4, _append_both(body, order, own, theirs))
    return bytes(body), tuple(notes)


def _entries(block: bytearray, own: Directory, besides: tuple[int, ...]) -> tuple[dict[int, bytes], bool]:
    """The entries of the block's first directory as they stand there, but for the layout except `besides`;
    and whether all are whole.
    """
    reader = ifd.Reader(block)
    start = reader.first()
    fields, end = reader.directory(start)
    wanted = (field for field in fields if field.tag not in LAYOUT or field.tag in besides)
    kept = [field for field in wanted if field.tag not in own]
    kept.reverse()  # of those that are there twice the first counts
    entries = {field.tag: bytes(block[field.at : field.at + 12]) for field in kept}
    return entries, len(fields) == (end - start - 2) // 12


def _append_both(body: bytearray, order: str, own: Directory, theirs: dict[int, bytes]) -> int:
    """A directory at the end, of fields with values and of entries whose values stand in `body` already."""
    start = _append(body, order, own | {tag: Entry(1, 1, b"\0") for tag in theirs})
    for number, tag in enumerate(sorted(own | theirs)):
        if tag in theirs:
            at = start + 2 + 12 * number
            body[at : at + 12] = theirs[tag]
    return start


def is_raw_ycbcr(data: bytes) -> bool:
    """Whether the channels are luma and chroma as libvips takes them for RGB: in planes, or of full size."""
    try:
        reader = ifd.Reader(data)
        fields, _ = reader.directory(reader.first())
    except struct.error:
        return False
    found = ifd.numbers(reader, fields, PHOTOMETRIC, COMPRESSION, PLANES, SUBSAMPLING)
    photometric, compression, planes = (found.get(tag, (0,))[0] for tag in (PHOTOMETRIC, COMPRESSION, PLANES))
    full_size = found.get(SUBSAMPLING) == (1, 1)
    return photometric == YCBCR and (planes == SEPARATE or (full_size and compression != JPEG))


class Picture(NamedTuple):
    """One directory's. `kind`: bits that say whether it is a smaller copy, or a mask."""

    width: int
    height: int
    kind: int
    photometric: int


def pictures(data: bytes) -> list[Picture]:
    """All pictures of the file, as far as it can be followed: pages first, then those below them."""
    found: list[Picture] = []
    below: list[int] = []
    seen = set[int]()
    try:
        reader = ifd.Reader(data)
        at = reader.first()
        while at and at not in seen and len(seen) < MAX_PAGES:
            seen.add(at)
            fields, link = reader.directory(at)
            found.append(_picture(reader, fields))
            below += ifd.numbers(reader, fields, SUB_IFDS).get(SUB_IFDS, ())
            at = reader.following(link)
        for start in below[: MAX_PAGES - len(seen)]:
            found.append(_picture(reader, reader.directory(start)[0], page=False))
    except struct.error:  # the chain is cut
        pass
    return found


def _picture(reader: ifd.Reader, fields: list[ifd.Field], *, page: bool = True) -> Picture:
    tags = (WIDTH, HEIGHT, SUBFILE_TYPE, OLD_SUBFILE_TYPE, PHOTOMETRIC)
    values = ifd.numbers(reader, fields, *tags)
    width, height, kind, old_kind, photometric = (values.get(tag, (0,))[0] for tag in tags)
    kind |= SMALLER if old_kind == OLD_SMALLER else 0
    return Picture(width, height, kind if page else kind | BELOW, photometric)


def pages(data: bytes) -> int:
    """How many pages the file has, without what it calls smaller copies or masks of others."""
    return sum(not picture.kind & (SMALLER | MASK | BELOW) for picture in pictures(data))


def larger(data: bytes) -> Picture | None:
    """The picture that the first one of the file is only a preview of, if there is such a one."""
    first, *others = pictures(data) or [Picture(0, 0, 0, 0)]
    wanted = (
        other for other in others if not other.kind & MASK and (first.kind & SMALLER or other.kind & BELOW)
    )
    found = max(wanted, key=lambda picture: picture.width * picture.height, default=None)
    if found is not None and found.width * found.height > first.width * first.height:
        return found
    return None


def unfit(data: bytes) -> str | None:
    """Why the first picture of a file is not the one that is meant, in words; None: it is."""
    if (main := larger(data)) is not None:
        first = pictures(data)[0]
        return (
            f"the TIFF begins with a preview of {first.width}x{first.height} pixels; save its main picture, "
            f"of {main.width}x{main.height}, as a TIFF or PNG of its own"
        )
    if (count := pages(data)) > 1:
        return f"the TIFF has {count} pages; save each as its own file"
    return None


def swapped(value: bytes, unit: int) -> bytes:
    return np.frombuffer(value, np.uint8).reshape(-1, unit)[:, ::-1].tobytes()
