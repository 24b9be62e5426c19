"""Photographs in and out of files: every pixel and what the file says about them, or one clear error.

Shapes: H height, W width.
"""

import dataclasses
import logging
import stat
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from maximir.errors import MaximirError
from maximir.files import reason, write_atomically

_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}
WRITABLE = tuple(_KINDS)
NOT_WRITABLE = (".avif", ".gif", ".bmp", ".heic", ".jxl")  # images all the same
MAX_PIXELS = 250_000_000
MAX_BYTES = 4 * 2**30  # a file is read whole; MAX_PIXELS of uncompressed 16-bit RGBA need half of this

# libvips marks the loaders that are fuzzed; no other may see a file from a stranger.
pyvips.block_untrusted_set(True)
# Nothing here is computed twice: a cache would only hold memory.
pyvips.cache_set_max(0)
logging.getLogger("pyvips").setLevel(logging.ERROR)  # what matters is raised, and told in one sentence

_BLOBS = ("icc-profile-data", "exif-data", "xmp-data", "iptc-data")
_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpeg": {"Q": 95, "subsample_mode": "off", "optimize_coding": True},
    "webp": {"lossless": True, "exact": True},  # exact: the colours of transparent pixels too
    "tiff": {"compression": "deflate", "predictor": "horizontal"},
}
_KEEP_EXIF, _KEEP_ALL = 1, 31  # libvips's flags: exif 1, xmp 2, iptc 4, icc 8, other 16
_LONGEST = {"jpeg": 65_500, "webp": 16_383}  # pixels a side
_UNKNOWN = 1.0  # libvips's resolution, in pixels per mm, of a file that names none


# libvips's names -> ICC, EXIF, XMP, IPTC (bytes), PNG comments (str), xres and yres (float, pixels per mm)
Metadata = dict[str, bytes | str | float]


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph, upright."""

    rgb: np.ndarray  # [H, W, 3] uint8 or uint16, full range; a grey one has three equal channels
    grey: bool = False  # the file was grey: write() writes one channel back
    alpha: np.ndarray | None = None  # [H, W], same dtype as rgb
    metadata: Metadata = field(default_factory=dict)  # what write() puts back
    notes: tuple[str, ...] = ()  # facts worth telling the user


def read(path: Path) -> Photo:
    """Decode the whole file at `path`; its content, not its suffix, says what it is.

    Raises MaximirError with the reason, without the path.
    """
    try:
        return _decode(_bytes(Path(path)))
    except pyvips.Error as e:
        if "not in a known format" in str(e):
            raise MaximirError("not an image that maximir can read") from e
        raise MaximirError(f"the file is truncated or damaged ({_first_line(e)})") from e
    except OSError as e:
        raise MaximirError(reason(e)) from e
    except MemoryError as e:
        raise MaximirError("not enough memory to decode the image") from e
    except ValueError as e:
        raise MaximirError(f"the file cannot be read ({e})") from e


def check_fits(photo: Photo, path: Path) -> None:
    """Raise MaximirError, without the path, if `write` could not put `photo` there by the format's nature."""
    kind = _KINDS.get(suffix := path.suffix.lower())
    if kind is None:
        raise MaximirError(f"cannot write '{suffix}' files; use one of {' '.join(WRITABLE)}")
    if photo.alpha is not None and kind == "jpeg":
        raise MaximirError("JPEG cannot hold transparency; write PNG, WebP or TIFF instead")
    if (limit := _LONGEST.get(kind, 0)) and max(photo.rgb.shape[:2]) > limit:
        raise MaximirError(f"{suffix} holds at most {limit:,} pixels a side; write PNG or TIFF instead")


def write(photo: Photo, path: Path) -> tuple[str, ...]:
    """Encode `photo` as the suffix of `path` says, and put it there whole or not at all.

    PNG and TIFF keep 8 and 16 bit; JPEG and WebP get 8. JPEG has quality 95 and full chroma. WebP is
    lossless, because lossy WebP always halves the chroma. Returns notes on what the format could not
    hold. Raises MaximirError with the reason, without the path; an older file at `path` is then untouched.
    """
    path = Path(path)
    check_fits(photo, path)
    suffix = path.suffix.lower()
    kind = _KINDS[suffix]
    try:
        photo, notes = _fitted(photo, kind)
        data = _encode(photo, kind)
        write_atomically(path, data)
    except pyvips.Error as e:
        raise MaximirError(f"the image cannot be encoded as {suffix} ({_first_line(e)})") from e
    except OSError as e:
        raise MaximirError(reason(e)) from e
    except MemoryError as e:
        raise MaximirError("not enough memory to encode the image") from e
    return notes


def _fitted(photo: Photo, kind: str) -> tuple[Photo, tuple[str, ...]]:
    """`photo` without what `kind` cannot hold, and a note on each such thing."""
    notes = []
    metadata = dict(photo.metadata)
    if photo.rgb.dtype == np.uint16 and kind not in ("png", "tiff"):
        notes.append(f"16 bit reduced to the 8 of {kind.upper()}")
    profile = metadata.get("icc-profile-data")
    if isinstance(profile, bytes) and kind == "png":  # libpng takes only profiles of the length they claim
        (length,) = struct.unpack_from(">I", profile) if len(profile) >= 128 else (0,)
        if 128 <= length <= len(profile):
            metadata["icc-profile-data"] = profile[:length]
        else:
            del metadata["icc-profile-data"]
            notes.append("damaged colour profile left out")
    for name in [name for name, value in metadata.items() if isinstance(value, str) and not value.isascii()]:
        del metadata[name]  # libvips takes PNG's Latin-1 texts for UTF-8
        notes.append(f"text '{name.rsplit('-', 1)[-1]}' left out")
    return dataclasses.replace(photo, metadata=metadata), tuple(notes)


def _bytes(path: Path) -> bytes:
    """The file's content. Read, not mapped: a mapped file that shrinks meanwhile kills the process."""
    info = path.stat()
    if stat.S_ISDIR(info.st_mode):
        raise MaximirError("is a folder, not a file")
    if not stat.S_ISREG(info.st_mode):  # a pipe would block for ever
        raise MaximirError("is not a regular file")
    if info.st_size > MAX_BYTES:
        raise MaximirError(f"the file has {info.st_size:,} bytes; the limit is {MAX_BYTES:,}")
    data = path.read_bytes()
    if not data:
        raise MaximirError("the file is empty")
    return data


def _decode(data: bytes) -> Photo:
    # "error" finds damaged TIFF strips, which "truncated" lets pass; "warning" refuses files that
    # every viewer shows, such as JPEGs with a few stray bytes between markers.
    image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="error")
    _refuse(image)
    notes = []
    if _get(image, "n-pages", 1) > 1:
        notes.append(f"first of {image.get('n-pages')} frames")
    image = image.copy_memory().autorot()  # decodes here: turning needs the rows out of order
    if image.interpretation == "cmyk":
        image = _from_cmyk(image)
        notes.append("CMYK converted to sRGB")

    pixels = image.numpy().reshape(image.height, image.width, image.bands)
    grey, colours = image.bands < 3, 1 if image.bands < 3 else 3
    alpha = np.ascontiguousarray(pixels[..., colours]) if image.bands > colours else None
    rgb = np.repeat(pixels[..., :1], 3, axis=2) if grey else np.ascontiguousarray(pixels[..., :3])
    return Photo(rgb, grey, alpha, _metadata(image, data), tuple(notes))


def _refuse(image: pyvips.Image) -> None:
    """Raise MaximirError for what cannot or must not be decoded, judged by the header alone."""
    width, height, space = image.width, image.height, image.interpretation
    if width * height > MAX_PIXELS:
        raise MaximirError(f"{width}x{height} is over the limit of {MAX_PIXELS:,} pixels")
    if width * height == 0:
        raise MaximirError("the image has no pixels")
    if image.format not in ("uchar", "ushort"):
        raise MaximirError(f"{image.format} samples are not supported; save it with 8 or 16 bits per channel")
    bands = {"b-w": 2, "grey16": 2, "srgb": 4, "rgb": 4, "rgb16": 4, "cmyk": 5}.get(space)
    if bands is None:
        raise MaximirError(f"the colour space '{space}' is not supported; save it as RGB")
    if image.bands > bands:
        raise MaximirError(f"{image.bands} channels are not supported; save it as grey or RGB")
    if image.get("vips-loader").startswith("tiff") and _get(image, "n-pages", 1) > 1:
        raise MaximirError(f"the TIFF has {image.get('n-pages')} pages; save each as its own file")


def _from_cmyk(image: pyvips.Image) -> pyvips.Image:
    """sRGB with libvips's sRGB profile; a missing or useless profile means libvips's own CMYK."""
    depth = 16 if image.format == "ushort" else 8
    rgb = image[:4].icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    return rgb.bandjoin(image[4]) if image.bands == 5 else rgb


def _metadata(image: pyvips.Image, data: bytes) -> Metadata:
    names = [n for n in image.get_fields() if n in _BLOBS or n.startswith("png-comment-")]
    kept: Metadata = {n: image.get(n) for n in names}
    if data[:4] in (b"II*\0", b"MM\0*") and (exif := _exif_of_tiff(data)):  # libvips leaves it behind
        kept["exif-data"] = exif
    xres, yres = image.xres, image.yres
    if xres == _UNKNOWN and image.get("vips-loader").startswith(("webp", "heif")):
        # These containers have no resolution but EXIF's, and libvips does not look there.
        per_mm = 10 if _get(image, "exif-ifd0-ResolutionUnit", "2").startswith("3") else 25.4
        xres = _ratio(_get(image, "exif-ifd0-XResolution", ""), xres * per_mm) / per_mm
        yres = _ratio(_get(image, "exif-ifd0-YResolution", ""), yres * per_mm) / per_mm
    return kept | {"xres": xres, "yres": yres}


def _encode(photo: Photo, kind: str) -> bytes:
    colours = photo.rgb[..., :1] if photo.grey and kind != "webp" else photo.rgb  # WebP has no grey
    pixels = colours if photo.alpha is None else np.dstack([colours, photo.alpha])
    if pixels.dtype == np.uint16 and kind not in ("png", "tiff"):
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # round(x / 257)
    grey, wide = pixels.shape[2] < 3, pixels.dtype == np.uint16
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    image = _with_metadata(image, photo.metadata, kind)
    image = image.copy(interpretation=("grey16" if wide else "b-w") if grey else "rgb16" if wide else "srgb")
    # libvips invents EXIF, to tell the resolution: don't let it where there is nothing to tell.
    plain = "exif-data" not in photo.metadata and image.xres == _UNKNOWN
    keep = _KEEP_ALL - _KEEP_EXIF if plain else _KEEP_ALL
    data: bytes = image.write_to_buffer(f".{kind}", keep=keep, **_OPTIONS[kind])
    return _add_to_tiff(data, photo.metadata) if kind == "tiff" else data


def _with_metadata(image: pyvips.Image, metadata: Metadata, kind: str) -> pyvips.Image:
    """`image` with libvips's fields for `metadata`, and upright for every viewer."""
    if exif := metadata.get("exif-data"):
        # libvips writes EXIF from the fields that its readers make: have it read a one-pixel PNG.
        assert isinstance(exif, bytes)
        carrier = pyvips.Image.new_from_buffer(_pixel_png(exif.removeprefix(b"Exif\0\0")), "")
        image = carrier.insert(image, 0, 0, expand=True)
    image = image.copy(xres=metadata.get("xres", _UNKNOWN), yres=metadata.get("yres", _UNKNOWN))
    for name, value in metadata.items():
        if isinstance(value, bytes) and name != "exif-data":
            # JPEG wraps IPTC as Photoshop does; TIFF has it bare, and gets it from _add_to_tiff.
            if name == "iptc-data" and not (kind == "jpeg" and value.startswith(b"Photoshop")):
                continue
            image.set_type(pyvips.GValue.blob_type, name, value)
        elif isinstance(value, str):
            image.set_type(pyvips.GValue.gstr_type, name, value)
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return image


def _pixel_png(exif: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"eXIf", exif), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


# EXIF and IPTC in TIFF. EXIF is itself a small TIFF; libvips neither reads nor writes it in one.

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes by type
_IPTC = 33723
_SUB_IFDS = (0x8769, 0x8825)  # EXIF, GPS
# Of a TIFF's own directory, the fields that describe the photograph rather than the pixels' layout:
# description, make, model, software, date, artist, host, copyright.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 33432)
_MAX_FIELDS, _MAX_FIELD = 512, 65_536  # what one directory may ask us to copy
_Directory = dict[int, tuple[int, int, bytes]]  # tag -> field type, count, little-endian values


def _exif_of_tiff(data: bytes) -> bytes | None:
    """The EXIF blob that a JPEG would carry, or None."""
    try:
        first, subs = _directories(data)
    except struct.error:
        return None
    kept = {t: first[t] for t in _DESCRIPTIVE if t in first}
    if not kept and not any(subs.values()):
        return None
    body, start = _pack(kept, subs, at=8)
    return b"Exif\0\0" + struct.pack("<4sI", b"II*\0", start) + body


def _add_to_tiff(tiff: bytes, metadata: Metadata) -> bytes:
    """`tiff` with a new first directory at its end: its own fields, EXIF, and IPTC (libvips cuts it)."""
    exif, iptc = metadata.get("exif-data"), metadata.get("iptc-data")
    blob = isinstance(exif, bytes) and _exif_of_tiff(exif.removeprefix(b"Exif\0\0"))
    extra, subs = _directories(blob.removeprefix(b"Exif\0\0")) if blob else ({}, {})
    if isinstance(iptc, bytes) and not iptc.startswith(b"Photoshop"):
        extra[_IPTC] = 7, len(iptc), iptc  # 7: bytes
    if not (extra or subs) or tiff[:4] != b"II*\0":
        return tiff
    own, _ = _directories(tiff, limit=len(tiff))
    pad = len(tiff) % 2  # directories start at even offsets
    body, start = _pack(extra | own, subs, at=len(tiff) + pad)
    return b"".join((tiff[:4], struct.pack("<I", start), memoryview(tiff)[8:], b"\0" * pad, body))


def _directories(data: bytes, limit: int = _MAX_FIELD) -> tuple[_Directory, dict[int, _Directory]]:
    """The first directory without its pointers to others, and those of EXIF and GPS by their tags."""
    order = "<" if data[:2] == b"II" else ">"
    first = _unpack(data, order, struct.unpack_from(order + "I", data, 4)[0], limit)
    starts = {t: struct.unpack("<I", first.pop(t)[2])[0] for t in _SUB_IFDS if t in first}
    return first, {t: _unpack(data, order, start, limit) for t, start in starts.items()}


def _unpack(data: bytes, order: str, start: int, limit: int) -> _Directory:
    """The fields of the directory at `start`, without those that make no sense; struct.error if none do."""
    (count,) = struct.unpack_from(order + "H", data, start)
    fields: _Directory = {}
    for at in range(start + 2, start + 2 + 12 * min(count, _MAX_FIELDS), 12):
        tag, kind, n = struct.unpack_from(order + "HHI", data, at)
        size = _SIZES.get(kind, 0) * n
        begin = at + 8 if size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        if 0 < size <= limit and begin + size <= len(data):
            value = data[begin : begin + size]
            unit = 4 if kind in (5, 10) else _SIZES[kind]  # rationals are pairs of 4 bytes
            fields[tag] = kind, n, _swapped(value, unit) if order == ">" else value
    return fields


def _pack(first: _Directory, subs: dict[int, _Directory], at: int) -> tuple[bytes, int]:
    """Little-endian directories to stand at offset `at`, and the offset of the first one."""
    body = b""
    for tag, sub in subs.items():
        first = first | {tag: (4, 1, struct.pack("<I", at + len(body)))}
        body += _directory(sub, at + len(body))
    return body + _directory(first, at + len(body)), at + len(body)


def _directory(fields: _Directory, at: int) -> bytes:
    table, values = struct.pack("<H", len(fields)), b""
    end = at + 2 + 12 * len(fields) + 4
    for tag, (kind, n, value) in sorted(fields.items()):
        inline = value if len(value) <= 4 else struct.pack("<I", end + len(values))
        table += struct.pack("<HHI4s", tag, kind, n, inline)
        values += b"" if len(value) <= 4 else value + b"\0" * (len(value) % 2)
    return table + b"\0\0\0\0" + values


def _swapped(value: bytes, unit: int) -> bytes:
    return np.frombuffer(value, np.uint8).reshape(-1, unit)[:, ::-1].tobytes()


def _get(image: pyvips.Image, name: str, default: Any) -> Any:
    return image.get(name) if name in image.get_fields() else default


def _ratio(text: str, default: float) -> float:
    """The number in '300/1 (300, Rational, …)', libvips's way to tell a field."""
    try:
        over, under = text.split()[0].split("/")
        return int(over) / int(under) or default
    except (ValueError, IndexError, ZeroDivisionError):
        return default


def _first_line(e: pyvips.Error) -> str:
    lines = [line.strip() for line in str(e.detail).splitlines() if line.strip()]
    return lines[0][:100] if lines else "libvips gives no reason"
