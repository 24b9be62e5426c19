"""Image files that libvips does not read: HEIC and JPEG XL by optional libraries, others by Pillow.

Shapes: H height, W width, C channels: grey or RGB, and alpha behind them.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, BmpImagePlugin, ImageFile, ImageOps

from maximir.errors import DamagedImage, MaximirError, UnsupportedImage
from maximir.images.codecs import bitmap, heif, jxl
from maximir.images.codecs.decoded import CheckSize, Decoded
from maximir.images.metadata import exif, ifd, profiles, xmp
from maximir.images.metadata.fields import Metadata

HEIF_BRANDS = (
    b"heic",
    b"heix",
    b"hevc",
    b"hevx",
    b"heim",
    b"heis",
    b"hevm",
    b"hevs",
    b"mif1",
    b"msf1",
    b"mif2",
)
AVIF_BRANDS = (b"avif", b"avis")
MORE_THAN_8, TWELVE, MONOCHROME = 0x40, 0x20, 0x10  # bits: flags of an AV1 image


def kind_of(data: bytes) -> str | None:
    """Return the kind of file by its first bytes; None if it is unknown."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(ifd.STARTS):
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"BM") and len(data) > 18 and data[14] in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if data.startswith(jxl.STARTS):
        return "jxl"
    if data[4:8] == b"ftyp":
        return _kind_of_heif(data)
    return None


def _kind_of_heif(data: bytes) -> str | None:
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    brands = {data[at : at + 4] for at in (8, *range(16, end - 3, 4))}
    if brands & set(AVIF_BRANDS):
        return "avif"
    return "heic" if brands & set(HEIF_BRANDS) else None


def is_odd_avif(data: bytes) -> bool:
    """Return whether libheif, behind libvips, reads the file badly: a sequence, or one without colours.

    It leaves grey levels in the narrow range of video.
    """
    return data[8:12] == b"avis" or bool(_av1_flags(data) & MONOCHROME)


def _av1_flags(data: bytes) -> int:
    """Return the flags of the first image's configuration."""
    at = data.find(b"av1C", 0, 65_536)
    return data[at + 6] if 0 < at < len(data) - 6 else 0


def unpacked(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Stretch uint16 with `bits` at the upper end, as libheif decodes them, to the full range, rounded."""
    most = (1 << bits) - 1
    table = (np.arange(most + 1) * 65_535 + most // 2) // most
    return table.astype(np.uint16)[pixels >> (16 - bits)]


def packed(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Round uint16 of full range to `bits` at the upper end. Undoes `unpacked`."""
    most = (1 << bits) - 1
    table = (np.arange(65_536) * most + 32_767) // 65_535
    return (table << (16 - bits)).astype(np.uint16)[pixels]


def heic(data: bytes, check_size: CheckSize) -> Decoded:
    """Decode the primary image, rotated as the container states; EXIF's orientation does not count there."""
    library = optional("pillow_heif", "HEIC", "formats")
    try:
        file = library.open_heif(data, convert_hdr_to_8bit=False)
        image = file[file.primary_index]
        check_size(*image.size)
        bits = int(image.info.get("bit_depth", 8))
        # A copy, because the memory belongs to the file, and without the padding of its rows.
        pixels = np.array(image)[:, : image.size[0]]
    except MaximirError:
        raise
    except (RuntimeError, IndexError) as error:  # such as JPEG or raw samples in the container
        raise UnsupportedImage("this kind of HEIF is not supported; save it as PNG or JPEG") from error
    except Exception as error:  # ValueError, EOFError, OSError, SyntaxError, …
        raise DamagedImage(f"the file is truncated or damaged ({_short(error)})") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype == np.uint16:
        pixels = unpacked(pixels, bits)
    info = image.info
    notes = [f"one of {len(file)} pictures"] if len(file) > 1 else []
    if info.get("aux") or info.get("depth_images"):
        notes.append("depth or gain map left out")
    metadata = _of_pillow(info) | heif.light(data)
    numbers = None
    if nclx := info.get("nclx_profile"):
        numbers = heif.as_cicp(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
    metadata |= profiles.chosen(numbers, metadata.pop("icc-profile-data", None), grey=pixels.shape[2] < 3)
    if pixels.dtype == np.uint16:
        metadata["bits-per-sample"] = bits
    return Decoded(np.ascontiguousarray(pixels), metadata, tuple(notes), turned=_was_turned(metadata))


def jpeg_xl(data: bytes, check_size: CheckSize) -> Decoded | bytes:
    """Decode the image, or return the JPEG file that was packed into this one without loss."""
    header = jxl.header(data)
    check_size(header.width, header.height)
    library = optional("pillow_jxl", "JPEG XL", "formats")
    try:
        is_jpeg, info, samples, icc, boxes = library.Decoder(num_threads=0)(data)
    except MemoryError:
        raise
    except Exception as error:  # its message is about building libjxl
        raise DamagedImage("the file is truncated or damaged") from error
    except BaseException as error:  # a panic of the Rust library is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise DamagedImage("the file is damaged in a way that its decoder does not expect") from error
    if is_jpeg:
        return bytes(samples)
    dtype = np.uint16 if info.mode == "I;16" else np.uint8
    pixels = np.frombuffer(samples, dtype)
    if info.mode == "F" or pixels.size % (info.width * info.height):
        raise UnsupportedImage("float samples are not supported; save it with 8 or 16 bits per channel")
    if icc[16:20] == b"CMYK":
        raise UnsupportedImage("CMYK in JPEG XL is not supported; save it as RGB")
    notes = []
    if header.animated:
        notes.append("first of several frames")
    if header.bits > 8 and dtype is np.uint8:
        notes.append(f"{header.bits} bit reduced to 8")
    grey = pixels.size < 3 * info.width * info.height
    profile = bytes(icc) if icc and not _says_srgb(icc) else None
    metadata = profiles.chosen(profiles.numbers_in(icc), profile, grey=grey)
    for box in boxes:
        kind, body = bytes(box.box_type), bytes(box.data)
        if kind == b"Exif":
            # 4 bytes state the offset in the rest; some programs omit them.
            start = 0 if body[:4] in ifd.STARTS else 4 + int.from_bytes(body[:4], "big")
            metadata.setdefault("exif-data", body[start:])
        elif kind == b"xml ":
            metadata.setdefault("xmp-data", xmp.upright(body))
        elif kind == b"brob":  # Brotli's
            notes.append("packed metadata left out")
    return Decoded(
        pixels.reshape(info.height, info.width, -1), metadata, tuple(notes), turned=_was_turned(metadata)
    )


def _says_srgb(icc: bytes) -> bool:
    """Return whether the decoder invented the profile for a file marked "sRGB": it need not be kept."""
    marks = ("sRGB", "RGB_D65_SRG_Rel_SRG", "Gra_D65_Rel_SRG")
    return icc[4:8] == b"jxl " and any(mark.encode("utf-16-be") in icc for mark in marks)


def bmp(data: bytes, check_size: CheckSize) -> Decoded:
    decoded = _by_pillow(BmpImagePlugin.BmpImageFile, data, check_size)
    colours, notes = bitmap.colours(data, grey=decoded.pixels.shape[2] < 3)
    return decoded._replace(metadata=decoded.metadata | colours, notes=(*decoded.notes, *notes))


def odd_avif(data: bytes, check_size: CheckSize) -> Decoded:
    """Decode in 8 bits, with Pillow."""
    decoded, flags = _by_pillow(AvifImagePlugin.AvifImageFile, data, check_size), _av1_flags(data)
    icc = decoded.metadata.pop("icc-profile-data", None)
    chosen = profiles.chosen(heif.numbers(data), icc, grey=decoded.pixels.shape[2] < 3)
    decoded = decoded._replace(metadata=decoded.metadata | heif.light(data) | chosen)
    if not flags & MORE_THAN_8:
        return decoded
    return decoded._replace(notes=(*decoded.notes, f"{12 if flags & TWELVE else 10} bit reduced to 8"))


def _by_pillow(reader: type[ImageFile.ImageFile], data: bytes, check_size: CheckSize) -> Decoded:
    """Decode the first frame. `Image.open` is avoided: it accepts formats that are not fuzzed here."""
    try:
        with reader(io.BytesIO(data)) as image:
            check_size(*image.size)
            frames, info = int(getattr(image, "n_frames", 1)), image.info
            upright = ImageOps.exif_transpose(image)
            alpha = "A" in upright.mode or "transparency" in upright.info
            pixels = np.asarray(
                upright if upright.mode == "L" else upright.convert("RGBA" if alpha else "RGB")
            )
    except (MaximirError, MemoryError):
        raise
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, …
        if "nsupported" in str(error):
            raise UnsupportedImage(f"this kind of image is not supported ({_short(error)})") from error
        raise DamagedImage(f"the file is truncated or damaged ({_short(error)})") from error
    notes = (f"first of {frames} frames",) if frames > 1 else ()
    metadata = _of_pillow(info)
    return Decoded(pixels[..., None] if pixels.ndim == 2 else pixels, metadata, notes, _was_turned(metadata))


def _of_pillow(info: Mapping[Any, Any]) -> Metadata:
    """Translate the `info` of Pillow and of libraries like it."""
    metadata: Metadata = {}
    if icc := info.get("icc_profile"):
        metadata["icc-profile-data"] = bytes(icc)
    if block := info.get("exif"):
        metadata["exif-data"] = bytes(block).removeprefix(exif.PREFIX)
    if packet := info.get("xmp"):
        metadata["xmp-data"] = xmp.upright(bytes(packet))
    if dpi := info.get("dpi"):
        metadata |= exif.sensible(dpi[0] / 25.4, dpi[1] / 25.4)
    return metadata


def _was_turned(metadata: Metadata) -> bool:
    """Return whether EXIF states a rotation: decoders do not report theirs, and containers seldom differ."""
    return exif.orientation(metadata.get("exif-data", b"")) > 1


def optional(module: str, kind: str, extra: str) -> Any:
    """Return a library that reads this kind of file.

    Raises:
        UnsupportedImage: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        install = f"pip install 'maximir[{extra}]'"
        raise UnsupportedImage(f"{kind} files need more libraries; install them: {install}") from error


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:100] if lines else type(error).__name__
