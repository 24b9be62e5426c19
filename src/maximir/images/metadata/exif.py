"""EXIF blocks: small TIFFs inside files of other kinds.

They are kept byte by byte, and what restoring changes is changed where it stands. Nothing is moved: maker
notes have offsets of their own into the block, and nobody knows all of them.
"""

from __future__ import annotations

import bisect
import struct

from maximir.images.metadata import ifd
from maximir.images.metadata.fields import Metadata

PREFIX = b"Exif\0\0"  # where a block stands in a JPEG, and in some other files
EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005  # pointers to further directories
ORIENTATION = 0x0112
WIDTHS, HEIGHTS = (0x0100, 0xA002, 0x1001), (0x0101, 0xA003, 0x1002)
SUBJECTS = (0x9214, 0xA214)  # a point, circle or box, in pixels as they were stored
# Offsets and lengths of a thumbnail: of a JPEG, of strips.
THUMBNAILS = ((0x0201, 0x0202), (0x0111, 0x0117))
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
RESOLUTIONS = ((X_RESOLUTION, Y_RESOLUTION), (0xA20E, 0xA20F))  # the latter: of the sensor
PER_MM = {2: 25.4, 3: 10.0}  # inches, centimetres; others say only how wide pixels are for their height
MOST_PER_MM = 100_000
MOST_PIECES = 1000  # of a thumbnail


def is_exif(block: bytes) -> bool:
    return block.removeprefix(PREFIX)[:4] in ifd.STARTS[:2]


def orientation(block: bytes) -> int:
    """Return EXIF's orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        reader = ifd.Reader(block.removeprefix(PREFIX))
        fields, _ = reader.directory(reader.first())
    except struct.error:
        return 1
    (value, *_) = ifd.numbers(reader, fields, ORIENTATION).get(ORIENTATION, (1,))
    return value if 1 <= value <= 8 else 1


def resolution(block: bytes) -> Metadata:
    """Return the resolution that the block states, if any."""
    try:
        reader = ifd.Reader(block.removeprefix(PREFIX))
        fields, _ = reader.directory(reader.first())
        values = {f.tag: reader.value(f) for f in fields if f.tag in (X_RESOLUTION, Y_RESOLUTION)}
        (unit, *_) = ifd.numbers(reader, fields, RESOLUTION_UNIT).get(RESOLUTION_UNIT, (2,))
        if unit not in PER_MM:
            return {}
        per_mm = PER_MM[unit]
        across, down = (
            struct.unpack(reader.order + "II", values[tag]) for tag in (X_RESOLUTION, Y_RESOLUTION)
        )
        x, y = across[0] / across[1] / per_mm, down[0] / down[1] / per_mm
    except (struct.error, KeyError, ZeroDivisionError):
        return {}
    return sensible(x, y)


def sensible(x: float, y: float) -> Metadata:
    """Return a resolution in pixels per mm as metadata, if it is plausible."""
    return {"xres": x, "yres": y} if 0 < x < MOST_PER_MM and 0 < y < MOST_PER_MM else {}


def swapped(resolution: Metadata) -> Metadata:
    """Return the resolution of a picture whose axes were exchanged."""
    return {"xres": resolution["yres"], "yres": resolution["xres"]} if "xres" in resolution else {}


def agree(one: Metadata, other: Metadata) -> bool:
    """Return whether both state the same resolution, rounded to dots per inch."""
    pairs = ((one.get("xres", 0), other.get("xres", 0)), (one.get("yres", 0), other.get("yres", 0)))
    return all(abs(a - b) * 25.4 < 0.51 for a, b in pairs)


def restored(block: bytes, width: int, height: int) -> bytes:
    """Correct a block for the upright picture of this size, and remove the thumbnail of the old one.

    What cannot be followed stays as it is. The caller has asked `is_exif`.
    """
    data = bytearray(block.removeprefix(PREFIX))
    try:
        reader = ifd.Reader(data)
        start = reader.first()
        fields, end = reader.directory(start)
    except struct.error:
        return bytes(data)
    turned = orientation(block)
    axes_swapped = turned > 4
    live = [(0, 8), (start, end + 4)]  # bytes that are still in use
    for number, parts in enumerate([fields, *_below(reader, fields, live)]):
        seen = set[int]()
        for field in parts:
            live.append((field.begin, field.begin + field.size))
            if field.tag in seen:
                continue
            seen.add(field.tag)
            if number == 0 and field.tag == ORIENTATION:
                _put(reader, field, 1)
            elif field.tag in WIDTHS:
                _put(reader, field, width)
            elif field.tag in HEIGHTS:
                _put(reader, field, height)
            elif field.tag in SUBJECTS:
                _turn(reader, field, turned, width, height)
        if axes_swapped:
            _swap_resolutions(data, parts)
    _drop_thumbnail(reader, end, live)
    return bytes(data)


def _below(reader: ifd.Reader, fields: list[ifd.Field], live: list[tuple[int, int]]) -> list[list[ifd.Field]]:
    """Return the fields of the directories of EXIF, GPS and interoperability; add their places to `live`."""
    found: list[list[ifd.Field]] = []
    pointers = ifd.numbers(reader, fields, EXIF, GPS)
    waiting = [pointers[tag][0] for tag in (EXIF, GPS) if tag in pointers]
    while waiting:
        start = waiting.pop()
        try:
            below, end = reader.directory(start)
        except struct.error:
            continue
        live.append((start, end))
        found.append(below)
        if len(found) < 3 and (values := ifd.numbers(reader, below, INTEROP).get(INTEROP)):
            waiting.append(values[0])
    return found


def _put(reader: ifd.Reader, field: ifd.Field, value: int) -> None:
    """Overwrite a single integer, in the entry itself; leave other values."""
    if field.kind not in (ifd.SHORT, ifd.LONG) or field.n != 1 or not isinstance(reader.data, bytearray):
        return
    kind = field.kind if value < 2**16 else ifd.LONG
    packed = struct.pack(reader.order + ("H2x" if kind == ifd.SHORT else "I"), value)
    struct.pack_into(reader.order + "H", reader.data, field.at + 2, kind)
    reader.data[field.begin : field.begin + 4] = packed


def _turn(reader: ifd.Reader, field: ifd.Field, turned: int, width: int, height: int) -> None:
    """Rotate the place of the subject: (x, y), optionally with a diameter or width and height."""
    if field.kind != ifd.SHORT or not 2 <= field.n <= 4 or turned == 1:
        return
    x, y, *size = reader.numbers(field)
    if turned in (2, 3, 7, 8):  # from the other side, before the axes are swapped
        x = (height if turned > 4 else width) - x
    if turned in (3, 4, 6, 7):
        y = (width if turned > 4 else height) - y
    if turned > 4:
        x, y, size = y, x, size[::-1]
    clipped = (min(max(value, 0), 2**16 - 1) for value in (x, y, *size))
    struct.pack_into(f"{reader.order}{field.n}H", reader.data, field.begin, *clipped)


def _swap_resolutions(data: bytearray, fields: list[ifd.Field]) -> None:
    """Exchange the resolutions across and down; both are fractions of eight bytes."""
    places = {field.tag: field.begin for field in fields if (field.n, field.size) == (1, 8)}
    for across, down in RESOLUTIONS:
        if across in places and down in places:
            a, b = (slice(places[tag], places[tag] + 8) for tag in (across, down))
            data[a], data[b] = data[b], data[a]


def _drop_thumbnail(reader: ifd.Reader, link: int, live: list[tuple[int, int]]) -> None:
    """Unlink the directory after the first one, and blank the bytes that only it uses."""
    data = reader.data
    assert isinstance(data, bytearray)
    if link + 4 > len(data) or not (start := reader.following(link)):
        return
    data[link : link + 4] = bytes(4)
    try:
        fields, end = reader.directory(start)
    except struct.error:
        return
    spans = [(start, min(end + 4, len(data)))]
    spans += [(field.begin, field.begin + field.size) for field in fields]
    values = ifd.numbers(reader, fields, *(tag for pair in THUMBNAILS for tag in pair))
    for offsets, lengths in THUMBNAILS:
        pieces = list(zip(values.get(offsets, ()), values.get(lengths, ()), strict=False))
        spans += [(at, min(at + length, len(data))) for at, length in pieces[:MOST_PIECES]]
    used = _united(live)
    gone = _united([span for span in spans if not _meets(used, *span)])
    for a, b in reversed(gone):
        if b >= len(data) - 1:  # allows one byte of padding
            del data[a:]
        else:
            data[a:b] = bytes(b - a)


def _united(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans sorted, with overlapping ones joined."""
    found: list[tuple[int, int]] = []
    for a, b in sorted(span for span in spans if span[0] < span[1]):
        if found and a <= found[-1][1]:
            found[-1] = found[-1][0], max(b, found[-1][1])
        else:
            found.append((a, b))
    return found


def _meets(united: list[tuple[int, int]], a: int, b: int) -> bool:
    """Return whether one of the spans has a byte of [a, b)."""
    k = bisect.bisect_right(united, (a, a))  # the first non-empty one that begins at a or later
    return (k > 0 and united[k - 1][1] > a) or (k < len(united) and united[k][0] < b)
