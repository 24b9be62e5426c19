"""Malformed image files, each from a number: small pictures of all kinds, damaged in all kinds of ways."""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyvips
from PIL import Image, ImageCms

from helpers.dng import dng, sensor_values
from maximir import images
from maximir.errors import DamagedImage, TooLarge, UnsupportedImage
from maximir.images import reading
from maximir.images.codecs.png import chunk, with_chunks

HEIC = Path(__file__).parent / "heic"
SIZES = (0, 1, 2, 3, 63, 255, 256, 4095, 16_384, 32_768, 50_000, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


class Piece(NamedTuple):
    """A part of a file: a chunk, a segment, a box, a field of a directory.

    Attributes:
        number: where its length (or another number) stands, and how it is packed.
    """

    start: int
    end: int
    number: tuple[int, str]


# The pictures


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 4, x * 3, x + y], -1).astype(np.uint8)


def pillow(kind: str, array: np.ndarray | Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def vips(suffix: str, array: np.ndarray, space: str = "srgb", **options: object) -> bytes:
    return pyvips.Image.new_from_array(array).copy(interpretation=space).write_to_buffer(suffix, **options)


@functools.cache
def originals() -> dict[str, bytes]:
    """Whole files by what they are. Those of optional libraries only where they are installed."""
    rgb, grey = smooth(), smooth()[..., 0].copy()
    wide = rgb.astype(np.uint16) * 257
    rgba = np.dstack([rgb, grey])
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[271], exif[274], exif[282], exif[296] = "Maker", 6, 300.0, 2
    exif.get_ifd(0x8769)[0x9003] = "2019:01:02 03:04:05"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    cmyk = Image.fromarray(rgba).convert("RGB").convert("CMYK")
    frames = [Image.fromarray(np.roll(rgb, 9 * k, 1)) for k in range(3)]
    several = {"save_all": True, "append_images": frames[1:]}
    made = {
        "png": pillow("PNG", rgb, exif=exif, icc_profile=icc),
        "png 16": vips(".png", wide, "rgb16", interlace=True),
        "png palette": pillow("PNG", frames[0].convert("P"), transparency=3),
        "png texts": with_chunks(pillow("PNG", grey), chunk(b"tEXt", b"Title\0caf\xe9") * 3),
        "png grey": pillow("PNG", frames[0].convert("1")),
        "apng": pillow("PNG", frames[0], **several),
        "jpeg": pillow("JPEG", rgb, exif=exif, icc_profile=icc, xmp=xmp),
        "jpeg progressive": pillow("JPEG", rgb, progressive=True, restart_marker_rows=1),
        "jpeg grey": pillow("JPEG", grey),
        "jpeg cmyk": pillow("JPEG", cmyk),
        "mpo": pillow("MPO", frames[0], **several),
        "webp": pillow("WEBP", rgba, exif=exif, icc_profile=icc, xmp=xmp),
        "webp lossless": pillow("WEBP", rgba, lossless=True),
        "webp animated": pillow("WEBP", frames[0], **several),
        "tiff": pillow("TIFF", rgb, exif=exif),
        "tiff deflate": vips(".tif", wide, "rgb16", compression="deflate", predictor="horizontal"),
        "tiff lzw tiles": vips(".tif", rgba, compression="lzw", tile=True, tile_width=16, tile_height=16),
        "tiff jpeg": vips(".tif", rgb, compression="jpeg"),
        "tiff cmyk": pillow("TIFF", cmyk, compression="packbits"),
        "tiff bits": pillow("TIFF", frames[0].convert("1"), compression="group4"),
        "bigtiff": vips(".tif", rgb, bigtiff=True),
        "gif": pillow("GIF", frames[0], **several),
        "bmp": pillow("BMP", rgb),
        "bmp palette": pillow("BMP", frames[0].convert("P")),
        "avif": pillow("AVIF", rgb, exif=exif, icc_profile=icc, xmp=xmp),
        "avif 10 alpha": vips(".avif", np.dstack([wide, wide[..., 0]]), "rgb16", bitdepth=10),
        "avif animated": pillow("AVIF", frames[0], **several),
    }
    try:
        import pillow_heif  # noqa: F401

        made |= {f"heic {path.stem}": path.read_bytes() for path in sorted(HEIC.glob("*.heic"))}
    except ImportError:
        pass
    try:
        import pillow_jxl

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made["jxl"] = pillow("JXL", rgb, lossless=True, exif=exif.tobytes(), xmp=xmp, use_container=True)
            made["jxl lossy"] = pillow("JXL", rgba, quality=80)
            packer = pillow_jxl.Encoder(
                mode="RGB", lossless=True, quality=100, use_container=True, num_threads=0
            )
            made["jxl of jpeg"] = packer(made["jpeg"], 56, 40, jpeg_encode=True)
    except ImportError:
        pass
    return made


@functools.cache
def raws() -> dict[str, bytes]:
    """Camera raw files, which have numbers of their own."""
    sensor = sensor_values(np.pad(smooth()[..., 1].astype(np.float32) / 300, 8))
    return {"dng": dng(sensor, neutral=(0.5, 1, 0.7)), "dng turned": dng(sensor, orientation=6)}


# Where their pieces are


def pieces(data: bytes) -> list[Piece]:
    """What the file is made of; nothing where that cannot be followed."""
    finders: dict[bytes, Callable[[bytes], list[Piece]]] = {
        b"\x89PNG": png_pieces,
        b"RIFF": riff_pieces,
        b"II*\0": tiff_pieces,
        b"\0\0\0\x0c": box_pieces,
    }
    if data[:2] == b"\xff\xd8":
        return jpeg_pieces(data)
    if data[4:8] == b"ftyp":
        return box_pieces(data)
    return finders.get(data[:4], lambda data: [])(data)


def png_pieces(data: bytes) -> list[Piece]:
    found, at = [], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found.append(Piece(at, min(end, len(data)), (at, ">I")))
        at = end
    return found


def riff_pieces(data: bytes) -> list[Piece]:
    found, at = [Piece(0, 12, (4, "<I"))], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        found.append(Piece(at, min(end, len(data)), (at + 4, "<I")))
        at = end
    return found


def jpeg_pieces(data: bytes) -> list[Piece]:
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append(Piece(at, min(end, len(data)), (at + 2, ">H")))
        if data[at + 1] == 0xDA:
            break
        at = end
    return found


def tiff_pieces(data: bytes) -> list[Piece]:
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    entries = [at + 2 + 12 * k for k in range(count) if at + 14 + 12 * k <= len(data)]
    found = [Piece(entry, entry + 12, (entry + where, "<I")) for entry in entries for where in (4, 8)]
    return [*found, Piece(0, 8, (4, "<I")), Piece(at, at + 2, (at, "<H"))]


def box_pieces(data: bytes, at: int = 0, end: int | None = None) -> list[Piece]:
    found, end = [], len(data) if end is None else end
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = end if length < 8 else min(at + length, end)
        found.append(Piece(at, stop, (at, ">I")))
        header = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"iinf": 14, b"moov": 8, b"trak": 8, b"mdia": 8}
        if kind in header:
            found += box_pieces(data, at + header[kind], stop)
        at = stop
    return found


def sizes(data: bytes) -> list[tuple[int, str]]:
    """Where width and height stand, and how they are packed."""
    marks = {  # what stands before: how far behind its beginning, how packed
        b"IHDR": [(4, ">I"), (8, ">I")],
        b"ispe": [(8, ">I"), (12, ">I")],
        b"VP8X": [(11, "<H"), (14, "<H")],
        b"\x9d\x01\x2a": [(3, "<H"), (5, "<H")],
        b"\xff\xc0": [(5, ">H"), (7, ">H")],
        b"\xff\xc2": [(5, ">H"), (7, ">H")],
        b"GIF8": [(6, "<H"), (8, "<H")],
        b"acTL": [(4, ">I")],
    }
    found = [
        (at + by, how) for mark, places in marks.items() if (at := data.find(mark)) >= 0 for by, how in places
    ]
    if data[:2] == b"BM":
        found += [(18, "<i"), (22, "<i"), (28, "<H"), (46, "<I")]
    if data[:4] == b"II*\0":
        found += [p.number for p in tiff_pieces(data) if data[p.start : p.start + 2] in (b"\0\1", b"\1\1")]
    return found


# The damage


def flip(data: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(0, reach(data, rng), rng.integers(1, 9)):
        data[at] ^= 1 << rng.integers(8)


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(0, reach(data, rng), rng.integers(1, 9)):
        data[at] = rng.choice([0, 1, 127, 128, 254, 255, rng.integers(256)])


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[rng.integers(reach(data, rng)) :]


def drop(data: bytearray, rng: np.random.Generator) -> None:
    piece = some(data, rng)
    del data[piece.start : piece.end]


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    piece = some(data, rng)
    data[piece.end : piece.end] = data[piece.start : piece.end] * int(rng.integers(1, 4))


def swap(data: bytearray, rng: np.random.Generator) -> None:
    a, b = sorted((some(data, rng), some(data, rng)))
    if a.end <= b.start:
        first, second = data[a.start : a.end], data[b.start : b.end]
        data[b.start : b.end] = first
        data[a.start : a.end] = second


def lie_about_length(data: bytearray, rng: np.random.Generator) -> None:
    put(data, some(data, rng).number, int(rng.choice(SIZES)))


def lie_about_size(data: bytearray, rng: np.random.Generator) -> None:
    places = sizes(bytes(data)) or [some(data, rng).number]
    for _ in range(rng.integers(1, 3)):
        put(data, places[rng.integers(len(places))], int(rng.choice(SIZES)))


def insert(data: bytearray, rng: np.random.Generator) -> None:
    at = rng.integers(reach(data, rng))
    data[at:at] = rng.bytes(int(rng.integers(1, 40)))


DAMAGE = (flip, overwrite, truncate, drop, repeat, swap, lie_about_length, lie_about_size, insert)


def reach(data: bytearray, rng: np.random.Generator) -> int:
    """How far from the beginning: headers break more than pixels."""
    return max(1, len(data) if rng.random() < 0.5 else min(len(data), 200))


def some(data: bytearray, rng: np.random.Generator) -> Piece:
    """One of the file's pieces, or any part of it."""
    if (found := pieces(bytes(data))) and rng.random() < 0.9:
        return found[rng.integers(len(found))]
    start = int(rng.integers(max(1, len(data) - 4)))
    return Piece(start, min(len(data), start + int(rng.integers(1, 64))), (start, "<I"))


def put(data: bytearray, place: tuple[int, str], value: int) -> None:
    at, how = place
    width = struct.calcsize(how)
    if at + width <= len(data):
        data[at : at + width] = struct.pack(how.upper(), value % 256**width)


def with_sums(data: bytearray) -> None:
    """Make the checksums of a PNG right again, so that the damage gets behind them."""
    for piece in png_pieces(bytes(data)):
        if piece.end - piece.start >= 12:
            sum_ = zlib.crc32(data[piece.start + 4 : piece.end - 4])
            data[piece.end - 4 : piece.end] = struct.pack(">I", sum_)


def malformed(seed: int, whole: Callable[[], dict[str, bytes]] = originals) -> tuple[str, bytes]:
    """What it was, and the damaged file."""
    rng = np.random.default_rng(seed)
    names = list(whole())
    name = names[seed % len(names)]
    data = bytearray(whole()[name])
    for _ in range(rng.integers(1, 4)):
        if data:
            DAMAGE[rng.integers(len(DAMAGE))](data, rng)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        with_sums(data)
    return name, bytes(data)


def attempt(
    seed: int, most_pixels: int | None = None, whole: Callable[[], dict[str, bytes]] = originals
) -> str:
    """Read it, and if that works write it: "read KIND" or "refused KIND: …". Raises what is not typed."""
    name, data = malformed(seed, whole)
    if most_pixels is not None:
        reading.MAX_PIXELS = most_pixels
    try:
        photo = images.decode(data)
    except (DamagedImage, TooLarge, UnsupportedImage) as error:
        reason = str(error)
        assert reason and "\n" not in reason and len(reason) < 250, repr(reason)
        return f"refused {name}: {reason}"
    height, width, colours = photo.rgb.shape
    assert height > 0 and width > 0 and colours == 3 and photo.rgb.dtype in (np.uint8, np.uint16)
    kinds = sorted(set(images.KINDS.values()) - ({"jpeg"} if photo.alpha is not None else set()))
    if photo.rgb.size < 10**5 and max(height, width) <= 16_383:  # the most that WebP holds
        encoded, _ = images.encode(photo, kinds[seed % len(kinds)])
        back = images.decode(encoded)
        assert back.rgb.shape == photo.rgb.shape, f"{photo.rgb.shape} came back as {back.rgb.shape}"
    return f"read {name}"
