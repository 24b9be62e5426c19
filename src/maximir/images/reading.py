"""Image files to photographs, judged by their content alone."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np

from maximir import headers
from maximir.errors import DamagedImage, MaximirError, TooLarge, UnsupportedImage
from maximir.files import check_file_size, read_file, reason
from maximir.images.codecs import behind, decoders, developing, raw, vips
from maximir.images.codecs.decoded import CheckSize, Decoded
from maximir.images.metadata import exif, ifd, xmp
from maximir.images.photo import Photo

MAX_PIXELS = 250_000_000
START = 65_536  # bytes, enough to tell what a file is
MAX_BYTES = 4 * 2**30  # a file is read whole; MAX_PIXELS of uncompressed 16-bit RGBA need half of this


def read(path: Path) -> Photo:
    """Decode the whole file at `path`; its content, not its suffix, decides the format.

    Raises MaximirError with the reason, without the path.
    """
    try:
        check_start(read_file(Path(path), MAX_BYTES, 0, START))
        data = read_file(Path(path), MAX_BYTES)
    except OSError as e:
        raise MaximirError(reason(e)) from e
    return dataclasses.replace(decode(data), digest=hashlib.sha256(data).hexdigest())


def check_start(start: bytes) -> None:
    """Judge a file by its first START bytes, or all if it has fewer, before the rest is read.

    Raises:
        UnsupportedImage: not an image, or of a kind that maximir does not read.
        DamagedImage: empty.
        TooLarge: over the limit of pixels.
    """
    if not start:
        raise DamagedImage("the file is empty")
    if start.startswith(ifd.STARTS):  # the directory, which tells raw from TIFF, may be at the end
        return
    if called := raw.name(start):
        developing.library(called)
        return
    if decoders.kind_of(start) is None and not vips.has_reader(start):
        raise UnsupportedImage("not an image that maximir can read")
    height, width = headers.size(io.BytesIO(start)) or (1, 1)
    _check_size(width, height)


def decode(data: bytes, admit: CheckSize = lambda width, height: None) -> Photo:
    """Decode a file's content, which alone decides the format. A camera raw file is developed.

    Args:
        admit: called with width and height before anything is decoded, perhaps twice; may raise.

    Raises:
        UnsupportedImage: not an image, or of a kind that maximir does not take.
        DamagedImage: empty, truncated or broken.
        TooLarge: over a limit, or there is not enough memory.
    """
    if not data:
        raise DamagedImage("the file is empty")
    check_file_size(len(data), MAX_BYTES)

    def check_size(width: int, height: int) -> None:
        _check_size(width, height)
        admit(width, height)

    try:
        if called := raw.name(data):  # never the result itself, as other files that are left alone
            return _photo(developing.develop(data, called, check_size))
        return dataclasses.replace(_photo(_decoded(data, check_size)), source=data)
    except MemoryError as e:
        raise TooLarge("not enough memory to decode the image") from e


def _decoded(data: bytes, check_size: CheckSize) -> Decoded:
    kind = decoders.kind_of(data)
    found = _by_kind(data, kind, check_size)
    return found._replace(notes=tuple(dict.fromkeys([*found.notes, *behind.notes(data, kind)])))


def _by_kind(data: bytes, kind: str | None, check_size: CheckSize) -> Decoded:
    if kind == "jxl":
        found = decoders.jpeg_xl(data, check_size)
        return _decoded(found, check_size) if isinstance(found, bytes) else found
    if kind == "heic":
        return decoders.heic(data, check_size)
    if kind == "bmp":
        return decoders.bmp(data, check_size)
    if kind == "avif" and decoders.is_odd_avif(data):
        return decoders.odd_avif(data, check_size)
    return vips.decode(data, kind, check_size)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooLarge(f"{width}x{height} is over the limit of {MAX_PIXELS:,} pixels")
    if width * height == 0:
        raise DamagedImage("the image has no pixels")


def _photo(decoded: Decoded) -> Photo:
    pixels, metadata, notes, turned = decoded
    grey = pixels.shape[2] < 3
    colours = 1 if grey else 3
    alpha = np.ascontiguousarray(pixels[..., colours]) if pixels.shape[2] > colours else None
    rgb = np.repeat(pixels[..., :1], 3, axis=2) if grey else np.ascontiguousarray(pixels[..., :3])
    height, width = rgb.shape[:2]
    if packet := metadata.get("xmp-data"):
        metadata["xmp-data"], more = xmp.corrected(packet, width, height, turned)
        notes += more
    if "xres" not in metadata:  # HEIC, WebP and the like have only EXIF's resolution
        block = metadata.get("exif-data", b"")
        stated = exif.resolution(block)
        metadata |= exif.swapped(stated) if exif.orientation(block) > 4 else stated
    return Photo(rgb, grey, alpha, metadata, notes)
