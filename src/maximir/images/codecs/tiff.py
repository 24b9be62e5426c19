"""TIFF files: what they say about the picture, which libvips neither reads nor writes.

An EXIF block is a small TIFF itself, so it becomes the beginning of the file that is written: nothing in it
moves.
"""

from __future__ import annotations

import contextlib
import struct
from typing import NamedTuple

import numpy as np

from maximir.images.metadata import exif, ifd, iptc, profiles
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
BITS, REFERENCE = 258, 532
SUBFILE_TYPE, SMALLER, MASK = 254, 1, 4
OLD_SUBFILE_TYPE, OLD_SMALLER = 255, 2
BELOW = 1 << 20  # maximir's own flag: not a page, but below one
# Fields about the storage of pixels, or kept in another way.
# fmt: off
LAYOUT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 288, 289,
    290, 291, 292, 293, 300, 301, 317, 320, 321, 322, 323, 324, 325, 326, 327, 328, 330, 332, 333, 334, 336,
    338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 351, 400, 401, 402, 403, 404, 405, 433, 434, 435, 437,
    512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559, 32995, 32996, 32997, 32998, 34675,
    37724, 50674, 50706, 50707, XMP, IPTC, PHOTOSHOP, exif.EXIF, exif.GPS, exif.INTEROP, *RESOLUTION,
))
# Those of them that are not only about storage: left out with a note.
LOST = {
    263: "halftoning", 264: "halftoning", 265: "halftoning", 321: "halftoning",
    280: "range of samples", 281: "range of samples", 340: "range of samples", 341: "range of samples",
    290: "response curve", 291: "response curve", 300: "response curve",
    301: "transfer function", 342: "transfer function",
    333: "ink names",
    343: "clipping path", 344: "clipping path", 345: "clipping path",
    351: "OPI proxy",
    400: "TIFF-FX", 401: "TIFF-FX", 402: "TIFF-FX", 403: "TIFF-FX", 404: "TIFF-FX", 405: "TIFF-FX",
    433: "TIFF-FX", 434: "TIFF-FX",
    532: "reference black and white",
    37724: "layers",
}
# fmt: on
USUAL = {263: (1,), 280: (0,), 340: (0,)}  # values that say nothing; of 281 and 341 the largest sample
LARGEST = (281, 341)
MAKER_NOTE = 0x927C
WHITE_POINT, PRIMARIES = 318, 319
SAMPLES, EXTRA_SAMPLES = 277, 338
# Kinds of the channel behind the colours: another one, premultiplied alpha, straight alpha.
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
SEPARATED, GREYS = 5, (0, 1)  # photometrics
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}  # channels by photometric
MAX_PAGES = 1000
MOST_LEFT_OUT = 8  # fields left out so that a block fits
MAX_FIELDS, MAX_FIELD, MAX_FIELDS_BYTES = 512, 2**20, 4 * 2**20  # limits for copying a directory
NOT_COPIED = "some fields of the TIFF left out: too long, too many, or of 64 bits"
MOVED = "maker notes moved: what they point to in the file may not be found"


class Entry(NamedTuple):
    """A field with its value's bytes, in the file's byte order."""

    kind: int
    n: int
    value: bytes


Directory = dict[int, Entry]


def described(data: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """Return the metadata of the first directory, and notes on what of it is not kept."""
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
        if tags or ifd.numbers(reader, fields, exif.EXIF, exif.GPS):  # otherwise EXIF would be invented
            found["exif-data"] = block
    return found, tuple(dict.fromkeys([*notes, *_lost(reader, fields), *_below(data)]))


def described_raw(data: bytes, left_out: frozenset[int]) -> tuple[Metadata, tuple[str, ...]]:
    """Return EXIF and XMP of a raw file that is a TIFF, without the tags `left_out`, and notes.

    Raises:
        struct.error: it has no directory.
    """
    reader = ifd.Reader(data)
    fields, _ = reader.directory(reader.first())
    notes: list[str] = []
    found: Metadata = {}
    if block := _block(reader, fields, notes, left_out):
        found["exif-data"] = block
    if packets := [field for field in fields if field.tag == XMP]:
        found["xmp-data"] = reader.value(packets[0])
    return found, tuple(dict.fromkeys(notes))


def joined(first: bytes, below: dict[int, bytes]) -> bytes:
    """Build an EXIF block of directories in TIFFs of their own: the first, and others by pointer's tag.

    Raises:
        struct.error: one has no directory.
    """
    order = ifd.Reader(first).order
    body = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)

    def copied(data: bytes) -> Directory:
        reader = ifd.Reader(data)
        if reader.order != order:
            raise struct.error("mixed byte orders")
        return _copied(reader, reader.directory(reader.first())[0], [], LAYOUT - set(RESOLUTION))

    directory = copied(first)
    for tag, data in below.items():
        if data:
            directory[tag] = Entry(ifd.LONG, 1, struct.pack(order + "I", _append(body, order, copied(data))))
    struct.pack_into(order + "I", body, 4, _append(body, order, directory))
    return bytes(body)


def _lost(reader: ifd.Reader, fields: list[ifd.Field]) -> list[str]:
    """Return notes on fields that are neither carried nor only about storage."""
    values = ifd.numbers(reader, fields, PHOTOMETRIC, BITS, *LOST)
    largest = (1 << max(values.get(BITS, (1,)))) - 1
    names = []
    for field in fields:
        usual = {largest} if field.tag in LARGEST else set(USUAL.get(field.tag, ()))
        is_layout = field.tag == REFERENCE and values.get(PHOTOMETRIC) == (YCBCR,)
        if (
            field.tag in LOST
            and not is_layout
            and not (usual and usual >= set(values.get(field.tag, (None,))))
        ):
            names.append(LOST[field.tag])
    return [f"{', '.join(dict.fromkeys(names))} left out"] if names else []


def _below(data: bytes) -> list[str]:
    """Return a note on pictures below the first that are not smaller copies of it."""
    count = sum(bool(each.kind & BELOW) and not each.kind & SMALLER for each in pictures(data))
    return [f"{count} pictures below the first left out"] if count else []


def colours(data: bytes) -> Metadata:
    """Return metadata with a profile for the chromaticities that the file states beside none, if it does."""
    try:
        reader = ifd.Reader(data)
        fields, _ = reader.directory(reader.first())
        (photometric, *_) = ifd.numbers(reader, fields, PHOTOMETRIC).get(PHOTOMETRIC, (-1,))
        values = {field.tag: reader.value(field) for field in fields if field.tag in (WHITE_POINT, PRIMARIES)}
        ratios = struct.unpack(reader.order + "16I", values[PRIMARIES] + values[WHITE_POINT])
    except (struct.error, KeyError):
        return {}
    if photometric not in (*COLOURS, YCBCR) or photometric == SEPARATED or 0 in ratios[1::2]:
        return {}
    parts = [over / under for over, under in zip(ratios[::2], ratios[1::2], strict=True)]
    points = tuple(zip(parts[::2], parts[1::2], strict=True))
    if not profiles.are_plausible(points):
        return {}
    return profiles.described(profiles.Colours(points), grey=photometric in GREYS)


def _extra_sample(reader: ifd.Reader, fields: list[ifd.Field]) -> Metadata:
    """Return the kind of the channel behind the colours, if there is one that is not usual alpha."""
    values = ifd.numbers(reader, fields, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES)
    colours = COLOURS.get(values.get(PHOTOMETRIC, (-1,))[0], 0)
    if not colours or values.get(SAMPLES, (1,))[0] <= colours:
        return {}
    (kind, *_) = values.get(EXTRA_SAMPLES, (UNSPECIFIED,))
    return {} if kind == UNASSOCIATED else {"extra-sample": min(kind, ASSOCIATED)}


def divided(pixels: np.ndarray) -> np.ndarray:
    """Round the colours of [H, W, C] that libvips divided by alpha and cut off: the inverse of `multiplied`.

    Otherwise each reading and writing would darken them.
    """
    full = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.int64)
    stored = (pixels * alpha + full - 1) // full  # the only value that was cut off to this one
    result = np.minimum((stored * full + alpha // 2) // np.maximum(alpha, 1), full)
    result = np.where(alpha > 0, result, pixels).astype(pixels.dtype)
    result[..., -1:] = pixels[..., -1:]
    return result


def multiplied(pixels: np.ndarray) -> np.ndarray:
    """Multiply the colours of [H, W, C] by alpha, rounded: `divided` is its inverse."""
    full = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.uint32)
    result = ((pixels * alpha + full // 2) // full).astype(pixels.dtype)
    result[..., -1:] = pixels[..., -1:]
    return result


def shortened(block: bytes, limit: int) -> tuple[bytes, tuple[int, ...], list[str]] | None:
    """Rebuild an EXIF block with at most `limit` bytes.

    Returns the block, the tags left out, longest first, and notes; None if it is impossible.
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
            return packed, left_out, notes
    return None


def _block(
    reader: ifd.Reader,
    fields: list[ifd.Field],
    notes: list[str],
    left_out: frozenset[int] = frozenset(),
) -> bytes:
    """Build an EXIF block of the descriptive fields and the directories of EXIF, GPS and interoperability."""
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
        if field.tag in left_out or field.tag in found:
            continue
        if field.kind in ifd.OF_BIGTIFF:
            notes.append(NOT_COPIED)
            continue
        total += field.size
        if field.size > MAX_FIELD or total > MAX_FIELDS_BYTES or len(found) == MAX_FIELDS:
            notes.append(NOT_COPIED)
            total -= field.size
            continue
        found[field.tag] = Entry(field.kind, field.n, reader.value(field))
    return found


def _append(body: bytearray, order: str, directory: Directory) -> int:
    """Append a directory; return its offset."""
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
    """Return the byte order of the file for an EXIF block, as in `struct`."""
    return ">" if metadata.get("exif-data", b"").startswith(b"MM") else "<"


def differences(pixels: np.ndarray) -> np.ndarray:
    """Return 16-bit samples as the horizontal predictor stores them in big-endian files; libvips cannot."""
    stored = pixels.copy()
    stored[:, 1:] -= pixels[:, :-1]
    return stored.byteswap()


def with_metadata(
    tiff: bytes, metadata: Metadata, *, predicted: bool = False
) -> tuple[bytes, tuple[str, ...]]:
    """Put `tiff`, as libvips writes it, behind the EXIF block, with one directory for both; add notes.

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
        if field.tag in (STRIPS, TILES):  # the file's bytes are moved behind the block
            moved = (at + len(block) - 8 for at in reader.numbers(field))
            own[field.tag] = Entry(ifd.LONG, field.n, struct.pack(f"{order}{field.n}I", *moved))
        else:
            own[field.tag] = Entry(field.kind, field.n, value if order == "<" else swapped(value, unit))
    stated = exif.resolution(metadata.get("exif-data", b""))
    if "xres" not in metadata or exif.agree(stated, metadata):  # libvips invents a resolution
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
    theirs: dict[int, bytearray] = {}
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


def _entries(block: bytearray, own: Directory, besides: tuple[int, ...]) -> tuple[dict[int, bytearray], bool]:
    """Return the entries of the block's first directory, and whether all are there.

    Fields about the layout are left out, except `besides`. EXIF 3.0's UTF-8 becomes ASCII, as libtiff has it.
    """
    reader = ifd.Reader(block)
    start = reader.first()
    fields, end = reader.directory(start)
    fields = [field for field in fields if field.kind not in ifd.OF_BIGTIFF]
    wanted = (field for field in fields if field.tag not in LAYOUT or field.tag in besides)
    kept = [field for field in wanted if field.tag not in own]
    kept.reverse()  # the first of repeated fields counts
    entries = {field.tag: block[field.at : field.at + 12] for field in kept}
    for field in kept:
        if field.kind == ifd.UTF8:
            struct.pack_into(reader.order + "H", entries[field.tag], 2, ifd.ASCII)
    return entries, len(fields) == (end - start - 2) // 12


def _append_both(body: bytearray, order: str, own: Directory, theirs: dict[int, bytearray]) -> int:
    """Append a directory of fields with values and of entries whose values are in `body` already."""
    start = _append(body, order, own | {tag: Entry(1, 1, b"\0") for tag in theirs})
    for number, tag in enumerate(sorted(own | theirs)):
        if tag in theirs:
            at = start + 2 + 12 * number
            body[at : at + 12] = theirs[tag]
    return start


def is_raw_ycbcr(data: bytes) -> bool:
    """Return whether libvips takes luma and chroma for RGB: in planes, or of full size."""
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
    """Picture of one directory. `kind`: flags for a smaller copy and for a mask."""

    width: int
    height: int
    kind: int
    photometric: int


def pictures(data: bytes) -> list[Picture]:
    """Return all pictures of the file that can be found: pages first, then those below them."""
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
    except struct.error:  # the chain is broken
        pass
    return found


def _picture(reader: ifd.Reader, fields: list[ifd.Field], *, page: bool = True) -> Picture:
    tags = (WIDTH, HEIGHT, SUBFILE_TYPE, OLD_SUBFILE_TYPE, PHOTOMETRIC)
    values = ifd.numbers(reader, fields, *tags)
    width, height, kind, old_kind, photometric = (values.get(tag, (0,))[0] for tag in tags)
    kind |= SMALLER if old_kind == OLD_SMALLER else 0
    return Picture(width, height, kind if page else kind | BELOW, photometric)


def pages(data: bytes) -> int:
    """Return the number of pages, without smaller copies or masks of others."""
    return sum(not picture.kind & (SMALLER | MASK | BELOW) for picture in pictures(data))


def larger(data: bytes) -> Picture | None:
    """Return the picture of which the first one is only a preview, if there is one."""
    first, *others = pictures(data) or [Picture(0, 0, 0, 0)]
    wanted = (
        other for other in others if not other.kind & MASK and (first.kind & SMALLER or other.kind & BELOW)
    )
    found = max(wanted, key=lambda picture: picture.width * picture.height, default=None)
    if found is not None and found.width * found.height > first.width * first.height:
        return found
    return None


def unfit(data: bytes) -> str | None:
    """Return why the first picture of a file is not the main one; None if it is."""
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
