"""Photographs to image files, and notes on what a format cannot hold."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pyvips

from maximir.errors import MaximirError, TooLarge, UnsupportedImage
from maximir.files import reason, write_atomically
from maximir.images.codecs import decoders, jpeg, png, raw, vips
from maximir.images.metadata import exif, iptc, profiles
from maximir.images.metadata.fields import Metadata
from maximir.images.photo import Photo

# suffix -> kind, as `encode` takes it
KINDS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
}
WRITABLE = tuple(KINDS)
RAW = raw.SUFFIXES
NOT_WRITABLE = (".gif", ".bmp", ".heic", ".heif", ".hif", ".jxl")  # read, but not written
WIDE = ("png", "tiff")  # kinds of 16 bits


def kind_for(data: bytes) -> str:
    """Return the kind of the result for a source, where nobody chose one."""
    kind = "tiff" if raw.name(data) else decoders.kind_of(data)
    return kind if kind is not None and kind in KINDS.values() else "png"


def check_fits(photo: Photo, path: Path) -> None:
    """Raise MaximirError, without the path, if the format of `path` cannot hold `photo`."""
    kind = KINDS.get(suffix := path.suffix.lower())
    if kind is None:
        raise UnsupportedImage(f"cannot write '{suffix}' files; use one of {' '.join(WRITABLE)}")
    _check_fits(photo, kind)


def write(photo: Photo, path: Path) -> tuple[str, ...]:
    """Encode `photo` in the format of the suffix of `path`, and write it there completely or not at all.

    PNG and TIFF keep 8 and 16 bit, AVIF 8, 10 and 12; JPEG and WebP get 8. WebP is lossless, because lossy
    WebP always halves the chroma; JPEG and AVIF have quality 95 and full chroma. Returns notes on what the
    format could not hold. Raises MaximirError with the reason, without the path; an older file at `path` is
    then untouched.
    """
    path = Path(path)
    check_fits(photo, path)
    data, notes = encode(photo, KINDS[path.suffix.lower()])
    try:
        write_atomically(path, data)
    except OSError as e:
        raise MaximirError(reason(e)) from e
    return notes


def encode(photo: Photo, kind: str) -> tuple[bytes, tuple[str, ...]]:
    """Return a file's content, and notes on what the format cannot hold. `kind`: a value of KINDS.

    A photograph that was left alone is the file that it came from, if that is of this kind.

    Raises:
        UnsupportedImage: the format cannot hold this photograph.
        TooLarge: not enough memory.
    """
    if photo.unchanged is not None and decoders.kind_of(photo.source) == kind:
        return photo.source, ()
    _check_fits(photo, kind)
    try:
        pixels, metadata, notes = _fitted(photo, kind)
        data, more = vips.encode(pixels, metadata, kind)
        return data, (photo.unchanged or ()) + notes + more
    except pyvips.Error as e:
        raise MaximirError(f"the image cannot be encoded as {kind.upper()} ({vips.cause(e)})") from e
    except MemoryError as e:
        raise TooLarge("not enough memory to encode the image") from e


def _check_fits(photo: Photo, kind: str) -> None:
    if kind not in KINDS.values():
        raise UnsupportedImage(f"cannot write {kind}; use one of {' '.join(dict.fromkeys(KINDS.values()))}")
    if kind == "jpeg" and not _is_opaque(photo):
        raise UnsupportedImage("JPEG cannot hold transparency; write PNG, WebP or TIFF instead")
    hdr = profiles.HDR.get(photo.metadata.get("cicp", bytes(4))[1])
    if kind != "png" and hdr:
        raise UnsupportedImage(f"HDR colours ({hdr}) cannot be written as {kind.upper()}; write PNG instead")
    if (limit := vips.LONGEST.get(kind, 0)) and max(photo.rgb.shape[:2]) > limit:
        raise UnsupportedImage(
            f"{kind.upper()} holds at most {limit:,} pixels a side; write PNG or TIFF instead"
        )


def _is_opaque(photo: Photo) -> bool:
    alpha = photo.transparency
    return alpha is None or bool(alpha.min() == np.iinfo(alpha.dtype).max)


def _fitted(photo: Photo, kind: str) -> tuple[np.ndarray, Metadata, tuple[str, ...]]:
    """Return pixels [H, W, C] and metadata as `kind` holds them, and a note on each loss."""
    notes = []
    metadata = photo.metadata.copy()
    grey = photo.grey and kind not in vips.ALWAYS_COLOUR
    pixels = photo.rgb[..., :1] if grey else photo.rgb
    if kind == "jpeg" and photo.transparency is not None:
        notes.append("alpha, which is opaque everywhere, left out")
    elif photo.alpha is not None and (kind == "tiff" or photo.transparency is not None):
        pixels = np.dstack([pixels, photo.alpha])
    elif photo.alpha is not None:
        notes.append("the TIFF's extra channel, which is no alpha, left out")
    if pixels.dtype == np.uint16 and kind == "avif":
        if metadata.get("bits-per-sample", 16) > 12:
            notes.append("16 bit reduced to the 12 of AVIF")
    elif pixels.dtype == np.uint16 and kind not in WIDE:
        pixels = _eighths()[pixels]
        notes.append(f"16 bit reduced to the 8 of {kind.upper()}")
    if kind == "png" and "cicp-profile" in metadata:
        metadata["icc-profile-data"] = metadata["cicp-profile"]
    if icc := metadata.get("icc-profile-data"):
        if misfit := profiles.misfit(icc, grey=grey):
            del metadata["icc-profile-data"]
            notes.append(f"{misfit} left out")
        else:
            metadata["icc-profile-data"] = icc[: int.from_bytes(icc[:4], "big")]  # libpng wants its length
    if (block := metadata.get("exif-data")) is not None:
        if exif.is_exif(block):
            metadata["exif-data"] = exif.restored(block, pixels.shape[1], pixels.shape[0])
        else:
            del metadata["exif-data"]
            notes.append("damaged EXIF left out")
    if (blob := metadata.get("iptc-data")) is not None:
        metadata["iptc-data"] = iptc.restored(blob)
        if kind not in ("jpeg", "tiff"):
            notes.append("IPTC left out")
    if kind != "jpeg" and (others := metadata.get("jpeg-segments")):
        notes.append(f"other data of the JPEG left out ({jpeg.names(others)})")
    if kind != "png" and (named := png.names(metadata.get("png-chunks", b""))):
        notes.append(f"other data of the PNG left out ({named})")
    if "comments" in metadata and kind not in ("jpeg", "png"):
        notes.append("comment left out")
    by_exif = exif.resolution(metadata.get("exif-data", b""))
    if "xres" in metadata and kind in ("webp", "avif") and not exif.agree(by_exif, metadata):
        notes.append("resolution left out")
    if kind != "png" and metadata.get("cicp", b"\1")[-1] == 0:
        notes.append(
            f"values in the narrow range of video, which {kind.upper()} cannot state: write PNG instead"
        )
    if kind != "png" and "png-light" in metadata:
        notes.append(f"the brightness of HDR left out, which {kind.upper()} cannot state here")
    if kind != "png" and "png-texts" in metadata:
        notes.append("the PNG's texts left out")
    return pixels, metadata, tuple(notes)


@functools.cache
def _eighths() -> np.ndarray:
    """Return the table 16 bits → 8: round(x / 257)."""
    return ((np.arange(65_536) + 128) // 257).astype(np.uint8)
