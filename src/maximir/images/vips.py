"""Image files through libvips: what it reads, and all that is written.

Shapes: H height, W width, C channels: grey or RGB, and alpha behind them.
"""

from __future__ import annotations

import atexit
import struct
import zlib
from typing import Any, Literal

import numpy as np
import pyvips

from maximir.errors import DamagedImage, MaximirError, TooLarge, UnsupportedImage
from maximir.images import jpeg, png, profiles, tiff
from maximir.images.decoded import CheckSize, Decoded, Metadata
from maximir.images.decoders import packed, unpacked, upright

# libvips marks the loaders that are fuzzed; no other may see a file from a stranger.
pyvips.block_untrusted_set(True)
# Nothing here is computed twice: a cache would only hold memory.
pyvips.cache_set_max(0)

LOGS = (b"VIPS", b"GLib-GObject")  # whose messages about damaged files nobody needs
LEVELS = 0xFF  # of GLib: all


def silence() -> object:
    """Have libraries print nothing: what matters is raised, and told in one sentence.

    pyvips has a handler, but for libvips alone, and it stumbles over messages that are not UTF-8. Returns the
    new one, which must be kept.
    """

    def handler(domain: object, level: object, message: object, data: object) -> None:
        pass

    if pyvips.API_mode:
        pyvips.ffi.def_extern("_log_handler_callback")(handler)
        callback = pyvips.glib_lib._log_handler_callback
    else:
        callback = pyvips.ffi.callback("GLogFunc", handler)
    remove = pyvips.glib_lib.g_log_remove_handler
    for name in LOGS:
        number = pyvips.glib_lib.g_log_set_handler(name, LEVELS, callback, pyvips.ffi.NULL)
        atexit.register(remove, name, number)  # at the very end there is no Python to call any more
    return callback


HANDLER = silence()

BLOBS: tuple[Literal["icc-profile-data", "exif-data", "xmp-data", "iptc-data"], ...] = (
    "icc-profile-data",
    "exif-data",
    "xmp-data",
    "iptc-data",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpeg": {"Q": 95, "subsample_mode": "off", "optimize_coding": True},
    "webp": {"lossless": True, "exact": True},  # exact: the colours of transparent pixels too
    "tiff": {"compression": "deflate", "predictor": "horizontal"},
    "avif": {"compression": "av1", "Q": 95, "subsample_mode": "off", "effort": 2},
}
LONGEST = {"jpeg": 65_500, "webp": 16_383, "avif": 16_384}  # pixels a side
ALWAYS_COLOUR = ("webp", "avif")  # libvips writes no grey ones
KEEP_EXIF, KEEP_ALL = 1, 31  # libvips's flags: exif 1, xmp 2, iptc 4, icc 8, other 16
MOST_FRAMES = 10_000  # of a WebP: the time that libwebp takes grows with their square
MOST_PER_MM = 100_000  # pixels: beyond is nonsense
UNKNOWN = 1.0  # libvips's resolution, in pixels per mm, of a file that names none
NOT_DAMAGED = (
    "nsupported",
    "not supported",
    "not implemented",
    "not configured",
    "not a whole number of bytes",
    "bad labq format",
)


def decode(data: bytes, kind: str | None, check_size: CheckSize) -> Decoded:
    """The first frame, upright.

    Raises:
        UnsupportedImage: nothing that libvips reads, or what we do not take.
        DamagedImage: truncated or broken.
        TooLarge: too many frames, or what `check_size` raises.
    """
    if kind == "webp" and data.count(b"ANMF") > MOST_FRAMES:
        raise TooLarge(f"the WebP has more than {MOST_FRAMES:,} frames")
    try:
        # "error" finds damaged TIFF strips, which "truncated" lets pass; "warning" refuses files that
        # every viewer shows, such as JPEGs with a few stray bytes between markers.
        image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="error")
        check_size(image.width, image.height)
        refuse(image, data, kind)
        frames = png.frames(data) if kind == "png" else get(image, "n-pages", 1)
        pictures = "frames" if kind in ("png", "gif", "webp") else "pictures"
        turned = kind == "avif" or get(image, "orientation", 1) > 1
        image = image.copy_memory().autorot()  # decodes here: turning needs the rows out of order
        is_cmyk = image.interpretation == "cmyk"
        image = from_cmyk(image) if is_cmyk else image
        pixels = image.numpy().reshape(image.height, image.width, image.bands)
    except pyvips.Error as error:
        raise in_words(error) from error
    except UnicodeDecodeError as error:  # pyvips: libvips's words have some of the file's bytes
        raise DamagedImage("the file is truncated or damaged") from error
    bits = get(image, "bits-per-sample", 16)
    metadata = kept(image, data, kind)
    if turned and "xmp-data" in metadata:
        metadata["xmp-data"] = upright(metadata["xmp-data"])
    if kind == "avif" and pixels.dtype == np.uint16 and bits < 16:
        pixels, metadata["bits-per-sample"] = unpacked(pixels, bits), bits
    notes = [f"first of {frames} {pictures}"] if frames > 1 else []
    if kind == "jpeg":
        notes += jpeg.notes(data)
    if is_cmyk:
        notes.append("CMYK converted to sRGB")
    return Decoded(pixels, metadata, tuple(notes))


def refuse(image: pyvips.Image, data: bytes, kind: str | None) -> None:
    """Raise MaximirError for what is not taken, judged by the header alone."""
    space = image.interpretation
    if image.format not in ("uchar", "ushort"):
        raise UnsupportedImage(
            f"{image.format} samples are not supported; save it with 8 or 16 bits per channel"
        )
    bands = {"b-w": 2, "grey16": 2, "srgb": 4, "rgb": 4, "rgb16": 4, "cmyk": 5}.get(space)
    if bands is None:
        raise UnsupportedImage(f"the colour space '{space}' is not supported; save it as RGB")
    if image.bands > bands:
        raise UnsupportedImage(f"{image.bands} channels are not supported; save it as grey or RGB")
    frames = get(image, "n-pages", 1)
    if kind == "tiff" and tiff.is_raw_ycbcr(data):
        raise UnsupportedImage("YCbCr in planes or without subsampling is not supported; save it as RGB")
    if kind == "tiff" and frames > 1 and tiff.pages(data) > 1:
        raise UnsupportedImage(f"the TIFF has {frames} pages; save each as its own file")
    if kind == "jpeg" and jpeg.is_cut(data):
        raise DamagedImage(f"the file is too short for {image.width}x{image.height} pixels")


def in_words(error: pyvips.Error) -> MaximirError:
    if "not in a known format" in str(error):
        return UnsupportedImage("not an image that maximir can read")
    line = cause(error)
    if any(word in line for word in NOT_DAMAGED):
        return UnsupportedImage(f"this kind of image is not supported ({line})")
    return DamagedImage(f"the file is truncated or damaged ({line})")


def cause(error: pyvips.Error) -> str:
    """What libvips says last, before it only says that it failed."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    telling = [line for line in lines if not line.endswith(("load error", "read error"))]
    return (telling or lines or ["for a reason that libvips keeps to itself"])[-1][:100]


def from_cmyk(image: pyvips.Image) -> pyvips.Image:
    """sRGB with libvips's sRGB profile; a missing or useless profile means libvips's own CMYK."""
    depth = 16 if image.format == "ushort" else 8
    inks, options = image[:4], {"embedded": True, "input_profile": "cmyk", "black_point_compensation": True}
    rgb = inks.icc_transform("srgb", depth=depth, **options)
    return rgb.bandjoin(image[4]) if image.bands == 5 else rgb


def kept(image: pyvips.Image, data: bytes, kind: str | None) -> Metadata:
    """What the file says about the photograph."""
    metadata: Metadata = {"xres": image.xres, "yres": image.yres}
    for name in BLOBS:
        if (value := get(image, name, None)) is not None:
            metadata[name] = value
    if kind == "png":
        if "icc-profile-data" not in metadata:
            metadata |= png.colours(data)
        if texts := png.texts(data):
            metadata["png-texts"] = texts
    if kind == "avif" and "icc-profile-data" not in metadata and (numbers := heif_numbers(data)):
        metadata |= profiles.described(*numbers, grey=False)
    if kind == "tiff" and (exif := tiff.exif_of_tiff(data)):  # libvips leaves it behind
        metadata["exif-data"] = exif
    return metadata


def heif_numbers(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer of an AVIF's colours, if it has them as numbers: of its first image."""
    at = data.find(b"colrnclx", 0, 65_536)
    return struct.unpack_from(">HH", data, at + 8) if 0 <= at <= len(data) - 12 else None


def encode(pixels: np.ndarray, metadata: Metadata, kind: str) -> bytes:
    """A file's content. `pixels`: [H, W, C], of the bits that the kind holds.

    Raises:
        pyvips.Error: libvips cannot.
    """
    wide, options = pixels.dtype == np.uint16, dict(OPTIONS[kind])
    if kind == "avif" and wide:
        options["bitdepth"] = avif_bits(metadata)
        pixels = packed(pixels, options["bitdepth"])
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    image = with_metadata(image, metadata, kind)
    grey = pixels.shape[2] < 3
    image = image.copy(interpretation=("grey16" if wide else "b-w") if grey else "rgb16" if wide else "srgb")
    # libvips invents EXIF, to tell the resolution: don't let it where there is nothing to tell.
    plain = "exif-data" not in metadata and image.xres == UNKNOWN
    data: bytes = image.write_to_buffer(
        f".{kind}", keep=KEEP_ALL - KEEP_EXIF if plain else KEEP_ALL, **options
    )
    if kind == "png":
        colours = png.cicp(metadata["cicp"]) if "cicp" in metadata else b""
        data = png.with_chunks(data, colours + metadata.get("png-texts", b""))
    if kind == "tiff":
        data = tiff.add_to_tiff(data, metadata.get("exif-data"), metadata.get("iptc-data"))
    return data


def avif_bits(metadata: Metadata) -> int:
    """Of a sample of an AVIF with more than 8: it has 10 or 12."""
    return 10 if metadata.get("bits-per-sample", 16) <= 10 else 12


def with_metadata(image: pyvips.Image, metadata: Metadata, kind: str) -> pyvips.Image:
    """`image` with libvips's fields for `metadata`, and upright for every viewer."""
    if exif := metadata.get("exif-data"):
        image = carrier(exif).insert(image, 0, 0, expand=True)
    xres, yres = metadata.get("xres", UNKNOWN), metadata.get("yres", UNKNOWN)
    if min(xres, yres) > 0 and max(xres, yres) < MOST_PER_MM:
        image = image.copy(xres=xres, yres=yres)
    blobs = {"icc-profile-data": metadata.get("icc-profile-data"), "xmp-data": metadata.get("xmp-data")}
    # JPEG wraps IPTC as Photoshop does; TIFF has it bare, and gets it from tiff.
    if kind == "jpeg" and metadata.get("iptc-data", b"").startswith(b"Photoshop"):
        blobs["iptc-data"] = metadata["iptc-data"]
    for name, value in blobs.items():
        if value:
            image.set_type(pyvips.GValue.blob_type, name, value)
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return image


def carrier(exif: bytes) -> pyvips.Image:
    """A black pixel with this EXIF, but without its thumbnail, which shows the picture as it was.

    libvips writes EXIF from the fields that its readers make: this has it read a PNG.
    """
    blob = tiff.without_thumbnail(exif.removeprefix(tiff.PREFIX))
    header = struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"eXIf", blob), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b""))
    file = png.SIGNATURE + b"".join(png.chunk(*chunk) for chunk in chunks)
    return pyvips.Image.new_from_buffer(file, "")


def get(image: pyvips.Image, name: str, default: Any) -> Any:
    # Not by `get_fields`: a PNG's texts are fields, and their names need not be text.
    return image.get(name) if image.get_typeof(name) else default
