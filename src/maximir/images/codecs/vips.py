"""Image files through libvips: what it reads, and all that is written.

Shapes: H height, W width, C channels: grey or RGB, and alpha behind them.
"""

from __future__ import annotations

import atexit
import struct
from typing import Any

import numpy as np
import pyvips

from maximir.errors import DamagedImage, MaximirError, TooLarge, UnsupportedImage
from maximir.images.codecs import gif, heif, jpeg, png, tiff, webp
from maximir.images.codecs.decoded import CheckSize, Decoded
from maximir.images.codecs.decoders import packed, unpacked
from maximir.images.metadata import exif, profiles, xmp
from maximir.images.metadata.fields import Metadata

# libvips marks the fuzzed loaders; no other may read an untrusted file.
pyvips.block_untrusted_set(True)
# Nothing is computed twice here, so a cache would only waste memory.
pyvips.cache_set_max(0)

LOGS = (b"VIPS", b"GLib-GObject")  # their messages about damaged files are not shown
LEVELS = 0xFF  # of GLib: all


def silence() -> object:
    """Keep libraries from printing: errors are raised, with one sentence each.

    pyvips has a handler for libvips alone, and it fails on messages that are not UTF-8. Returns the
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
        atexit.register(remove, name, number)  # at exit, the handler can no longer be called
    return callback


HANDLER = silence()

OPTIONS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpeg": {"Q": 95, "subsample_mode": "off", "optimize_coding": True},
    "webp": {"lossless": True, "exact": True},  # exact: the colours of transparent pixels too
    "tiff": {"compression": "deflate", "predictor": "horizontal", "resunit": "inch"},
    "avif": {"compression": "av1", "Q": 95, "subsample_mode": "off", "effort": 2},
}
LONGEST = {"jpeg": 65_500, "webp": 16_383, "avif": 16_384}  # pixels a side
ALWAYS_COLOUR = ("webp", "avif")  # libvips cannot write grey ones
KEEP_EXIF, KEEP_XMP, KEEP_ICC = 1, 2, 8  # libvips's flags
MOST_FRAMES = 10_000  # of a WebP: the time that libwebp takes grows with their square
NOT_DAMAGED = (
    "nsupported",
    "not supported",
    "not implemented",
    "not configured",
    "not a whole number of bytes",
    "bad labq format",
)


def has_reader(start: bytes) -> bool:
    """Return True if libvips has a reader for a file with this start, such as a JPEG after stray bytes."""
    found = pyvips.vips_lib.vips_foreign_find_load_buffer(start, len(start)) != pyvips.ffi.NULL
    pyvips.vips_lib.vips_error_clear()
    return found


def decode(data: bytes, kind: str | None, check_size: CheckSize) -> Decoded:
    """Decode the first frame, upright.

    Raises:
        UnsupportedImage: nothing that libvips reads, or what we do not take.
        DamagedImage: truncated or broken.
        TooLarge: too many frames, or what `check_size` raises.
    """
    if kind == "webp" and data.count(b"ANMF") > MOST_FRAMES:
        raise TooLarge(f"the WebP has more than {MOST_FRAMES:,} frames")
    if kind == "png" and len(data) >= png.HEADER_END:  # libpng takes absurd sizes for damage
        check_size(*struct.unpack_from(">2I", data, 16))
    try:
        # "error" finds damaged TIFF strips, which "truncated" lets pass; "warning" refuses files that
        # every viewer shows, such as JPEGs with a few stray bytes between markers.
        image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="error")
        check_size(image.width, image.height)
        refuse(image, data, kind)
        frames = png.frames(data) if kind == "png" else get(image, "n-pages", 1)
        pictures = "frames" if kind in ("png", "gif", "webp") else "pictures"
        metadata, said = kept(image, data, kind)
        turned = orientation(image, metadata, kind)
        image = image.copy_memory()  # decodes here: turning needs the rows out of order
        if kind != "avif":  # libheif has rotated it
            image.set_type(pyvips.GValue.gint_type, "orientation", turned)
            image = image.autorot()
            if turned > 4:
                metadata |= exif.swapped(metadata)
                if "png-chunks" in metadata:
                    metadata["png-chunks"] = png.with_axes_swapped(metadata["png-chunks"])
        is_cmyk = image.interpretation == "cmyk"
        image = from_cmyk(image) if is_cmyk else image
        pixels = image.numpy().reshape(image.height, image.width, image.bands)
    except pyvips.Error as error:
        raise in_words(error) from error
    except UnicodeDecodeError as error:  # from pyvips: the message contains bytes of the file
        raise DamagedImage("the file is truncated or damaged") from error
    bits = get(image, "bits-per-sample", 16)
    if kind == "avif" and pixels.dtype == np.uint16 and bits < 16:
        pixels, metadata["bits-per-sample"] = unpacked(pixels, bits), bits
    if kind == "tiff" and metadata.get("extra-sample") == tiff.ASSOCIATED:
        pixels = tiff.divided(pixels)
    notes = [f"first of {frames} {pictures}"] if frames > 1 else []
    if kind == "jpeg":
        notes += jpeg.notes(data)
    if is_cmyk:
        notes.append("CMYK converted to sRGB")
        if packet := metadata.get("xmp-data"):
            metadata["xmp-data"] = xmp.in_rgb(packet)
        if image.get_typeof("icc-profile-data"):
            metadata["icc-profile-data"] = image.get("icc-profile-data")
    return Decoded(pixels, metadata, (*notes, *said), turned > 1)


def refuse(image: pyvips.Image, data: bytes, kind: str | None) -> None:
    """Raise MaximirError for an image that is not supported, judged by the header alone."""
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
    if kind == "tiff" and tiff.is_raw_ycbcr(data):
        raise UnsupportedImage("YCbCr in planes or without subsampling is not supported; save it as RGB")
    if kind == "tiff" and (why := tiff.unfit(data)):
        raise UnsupportedImage(why)
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
    """Return libvips's last message before the one that only states the failure."""
    lines = [line.strip() for line in str(error.detail).splitlines() if line.strip()]
    telling = [line for line in lines if not line.endswith(("load error", "read error"))]
    return (telling or lines or ["libvips gives no reason"])[-1][:100]


def from_cmyk(image: pyvips.Image) -> pyvips.Image:
    """Convert to sRGB with libvips's profile; without a usable profile, from libvips's own CMYK."""
    depth = 16 if image.format == "ushort" else 8
    inks, options = image[:4], {"embedded": True, "input_profile": "cmyk", "black_point_compensation": True}
    rgb = inks.icc_transform("srgb", depth=depth, **options)
    return rgb.bandjoin(image[4]) if image.bands == 5 else rgb


def cmyk_to_srgb(inks: np.ndarray, icc: bytes | None) -> tuple[np.ndarray, bytes]:
    """Convert `[H, W, 4]` uint8 (255: full ink) through its profile to `[H, W, 3]` sRGB and that profile."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(inks)).copy(interpretation="cmyk")
    if icc:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    image = from_cmyk(image)
    return image.numpy(), bytes(image.get("icc-profile-data"))


def kept(image: pyvips.Image, data: bytes, kind: str | None) -> tuple[Metadata, tuple[str, ...]]:
    """Return the photograph's metadata, and notes on what of it is not kept."""
    notes: tuple[str, ...] = ()
    metadata: Metadata = {}
    match kind:
        case "jpeg":
            metadata, notes = jpeg.described(data)
        case "png":
            metadata, notes = png.described(data)
        case "tiff":
            metadata, notes = tiff.described(data)
        case "gif":
            metadata = gif.described(data)
        case _:
            if block := get(image, "exif-data", b""):
                metadata["exif-data"] = block.removeprefix(exif.PREFIX)
            if packet := get(image, "xmp-data", b""):
                metadata["xmp-data"] = xmp.upright(packet) if kind == "avif" else packet
    icc = get(image, "icc-profile-data", None)
    match kind:
        case "png":
            metadata |= png.colours(data, icc)
        case "avif":
            metadata |= heif.light(data) | profiles.chosen(heif.numbers(data), icc, grey=False)
        case "tiff" if icc is None:
            metadata |= tiff.colours(data)
        case _ if icc is not None:
            metadata["icc-profile-data"] = icc
    return metadata, notes


def orientation(image: pyvips.Image, metadata: Metadata, kind: str | None) -> int:
    """Return the orientation, 1 to 8, from the field that is set to 1 in the result."""
    block = metadata.get("exif-data", b"")
    if kind == "tiff" or not exif.is_exif(block):
        return int(get(image, "orientation", 1))
    return exif.orientation(block)


def encode(pixels: np.ndarray, metadata: Metadata, kind: str) -> tuple[bytes, tuple[str, ...]]:
    """Return a file's content, and notes on metadata too long for it. `pixels`: [H, W, C], of its bits.

    libvips writes pixels and the profile; EXIF it would make anew, of what it knows: the rest is put in here.

    Raises:
        pyvips.Error: libvips cannot.
    """
    height, width, channels = pixels.shape
    wide, options = pixels.dtype == np.uint16, dict(OPTIONS[kind])
    grey = channels < 3
    keep = KEEP_ICC
    if kind == "avif" and wide:
        options["bitdepth"] = avif_bits(metadata)
        pixels = packed(pixels, options["bitdepth"])
    if kind == "tiff" and metadata.get("extra-sample") == tiff.ASSOCIATED:
        pixels = tiff.multiplied(pixels)
    predicted = kind == "tiff" and wide and tiff.byte_order(metadata) == ">"
    if predicted:
        pixels, options["predictor"] = tiff.differences(pixels), "none"
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    image = image.copy(interpretation=("grey16" if wide else "b-w") if grey else "rgb16" if wide else "srgb")
    if "xres" in metadata:
        image = image.copy(xres=metadata["xres"], yres=metadata["yres"])
    blobs = {"icc-profile-data": metadata.get("icc-profile-data")}
    if kind == "avif":
        blobs["xmp-data"] = metadata.get("xmp-data")
        blobs["exif-data"] = heif.PLACEHOLDER if "exif-data" in metadata else None
        keep |= KEEP_XMP | (KEEP_EXIF if "exif-data" in metadata else 0)
    for name, value in blobs.items():
        if value:
            image.set_type(pyvips.GValue.blob_type, name, value)
    data: bytes = image.write_to_buffer(f".{kind}", keep=keep, **options)
    match kind:
        case "png":
            return png.with_metadata(data, metadata), ()
        case "jpeg":
            return jpeg.with_metadata(data, metadata)
        case "tiff":
            return tiff.with_metadata(data, metadata, predicted=predicted)
        case "webp":
            block, packet = metadata.get("exif-data"), metadata.get("xmp-data")
            return webp.with_metadata(data, width, height, block, packet), ()
        case "avif" if "exif-data" in metadata:
            try:
                return heif.with_exif(data, metadata["exif-data"]), ()
            except ValueError:  # from another libheif, with other boxes
                return data, ("EXIF left out",)
    return data, ()


def avif_bits(metadata: Metadata) -> int:
    """Return the bits of a sample of an AVIF with more than 8: 10 or 12."""
    return 10 if metadata.get("bits-per-sample", 16) <= 10 else 12


def get(image: pyvips.Image, name: str, default: Any) -> Any:
    # `get_fields` would fail: a PNG's texts are fields, and their names need not be valid text.
    return image.get(name) if image.get_typeof(name) else default
