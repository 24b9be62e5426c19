"""Photographs in and out of files: every pixel and what the file says about them, or one clear error.

Shapes: H height, W width, C channels: grey or RGB, and alpha behind them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvips

from maximir.errors import DamagedImage, MaximirError, TooLarge, UnsupportedImage
from maximir.files import reason, write_atomically
from maximir.images import decoders, exif, iptc, jpeg, profiles, raw, tiff, vips, xmp
from maximir.images.decoded import CheckSize, Decoded, Metadata

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
NOT_WRITABLE = (".gif", ".bmp", ".heic", ".heif", ".hif", ".jxl")  # images all the same
MAX_PIXELS = 250_000_000
MAX_BYTES = 4 * 2**30  # a file is read whole; MAX_PIXELS of uncompressed 16-bit RGBA need half of this
WIDE = ("png", "tiff")  # kinds of 16 bits


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph, upright."""

    rgb: np.ndarray  # [H, W, 3] uint8 or uint16, full range; a grey one has three equal channels
    grey: bool = False  # the file was grey: write() writes one channel back
    alpha: np.ndarray | None = None  # [H, W], same dtype as rgb; or a TIFF's extra channel
    metadata: Metadata = field(default_factory=Metadata)  # what write() puts back
    notes: tuple[str, ...] = ()  # facts worth telling the user
    digest: str = ""  # SHA-256 of the file that `read` decoded


def read(path: Path) -> Photo:
    """Decode the whole file at `path`; its content, not its suffix, says what it is.

    Raises MaximirError with the reason, without the path.
    """
    try:
        data = _bytes(Path(path))
    except OSError as e:
        raise MaximirError(reason(e)) from e
    except MemoryError as e:
        raise TooLarge("not enough memory to read the file") from e
    except ValueError as e:
        raise MaximirError(f"the file cannot be read ({e})") from e
    return dataclasses.replace(decode(data), digest=hashlib.sha256(data).hexdigest())


def decode(data: bytes, admit: CheckSize = lambda width, height: None) -> Photo:
    """The photograph in a file's content, judged by that alone.

    Args:
        admit: called with width and height before anything is decoded, perhaps twice; may raise.

    Raises:
        UnsupportedImage: not an image, or of a kind that maximir does not take.
        DamagedImage: empty, truncated or broken.
        TooLarge: over a limit, or there is not enough memory.
    """
    if not data:
        raise DamagedImage("the file is empty")
    if len(data) > MAX_BYTES:
        raise TooLarge(f"the file has {len(data):,} bytes; the limit is {MAX_BYTES:,}")

    def check_size(width: int, height: int) -> None:
        _check_size(width, height)
        admit(width, height)

    try:
        return _photo(_decoded(data, check_size))
    except MemoryError as e:
        raise TooLarge("not enough memory to decode the image") from e


def check_fits(photo: Photo, path: Path) -> None:
    """Raise MaximirError, without the path, if `write` could not put `photo` there by the format's nature."""
    kind = KINDS.get(suffix := path.suffix.lower())
    if kind is None:
        raise UnsupportedImage(f"cannot write '{suffix}' files; use one of {' '.join(WRITABLE)}")
    _check_fits(photo, kind)


def write(photo: Photo, path: Path, announce: Callable[[str], None] = lambda digest: None) -> tuple[str, ...]:
    """Encode `photo` as the suffix of `path` says, and put it there whole or not at all.

    PNG and TIFF keep 8 and 16 bit, AVIF 8, 10 and 12; JPEG and WebP get 8. WebP is lossless, because lossy
    WebP always halves the chroma; JPEG and AVIF have quality 95 and full chroma. Returns notes on what the
    format could not hold. Raises MaximirError with the reason, without the path; an older file at `path` is
    then untouched. `announce` is called with the SHA-256 of the file before it appears.
    """
    path = Path(path)
    check_fits(photo, path)
    data, notes = encode(photo, KINDS[path.suffix.lower()])
    try:
        announce(hashlib.sha256(data).hexdigest())
        write_atomically(path, data)
    except OSError as e:
        raise MaximirError(reason(e)) from e
    return notes


def encode(photo: Photo, kind: str) -> tuple[bytes, tuple[str, ...]]:
    """A file's content, and notes on what the format could not hold. `kind`: one of the values of KINDS.

    Raises:
        UnsupportedImage: the format cannot hold this photograph.
        TooLarge: not enough memory.
    """
    _check_fits(photo, kind)
    try:
        pixels, metadata, notes = _fitted(photo, kind)
        data, more = vips.encode(pixels, metadata, kind)
        return data, notes + more
    except pyvips.Error as e:
        raise MaximirError(f"the image cannot be encoded as {kind.upper()} ({vips.cause(e)})") from e
    except MemoryError as e:
        raise TooLarge("not enough memory to encode the image") from e


def _bytes(path: Path) -> bytes:
    """The file's content. Read, not mapped: a mapped file that shrinks meanwhile kills the process."""
    info = path.stat()
    if stat.S_ISDIR(info.st_mode):
        raise MaximirError("is a folder, not a file")
    if not stat.S_ISREG(info.st_mode):  # a pipe would block for ever
        raise MaximirError("is not a regular file")
    if info.st_size > MAX_BYTES:
        raise TooLarge(f"the file has {info.st_size:,} bytes; the limit is {MAX_BYTES:,}")
    return path.read_bytes()


def _decoded(data: bytes, check_size: CheckSize) -> Decoded:
    if why := raw.refusal(data):
        raise UnsupportedImage(why)
    kind = decoders.kind_of(data)
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
    if "xres" not in metadata:  # HEIC, WebP and the like have no resolution but EXIF's
        metadata |= exif.resolution(metadata.get("exif-data", b""))
    return Photo(rgb, grey, alpha, metadata, notes)


def _check_fits(photo: Photo, kind: str) -> None:
    if kind not in KINDS.values():
        raise UnsupportedImage(f"cannot write {kind}; use one of {' '.join(dict.fromkeys(KINDS.values()))}")
    if photo.alpha is not None and kind == "jpeg" and not _is_extra(photo):
        raise UnsupportedImage("JPEG cannot hold transparency; write PNG, WebP or TIFF instead")
    if kind != "png" and (numbers := photo.metadata.get("cicp")):
        hdr = profiles.HDR[numbers[1]]
        raise UnsupportedImage(f"HDR colours ({hdr}) cannot be written as {kind.upper()}; write PNG instead")
    if (limit := vips.LONGEST.get(kind, 0)) and max(photo.rgb.shape[:2]) > limit:
        raise UnsupportedImage(
            f"{kind.upper()} holds at most {limit:,} pixels a side; write PNG or TIFF instead"
        )


def _is_extra(photo: Photo) -> bool:
    """Whether `alpha` is another channel, such as a scanner's infrared: only TIFF has those."""
    return photo.metadata.get("extra-sample") == tiff.UNSPECIFIED


def _fitted(photo: Photo, kind: str) -> tuple[np.ndarray, Metadata, tuple[str, ...]]:
    """Pixels [H, W, C] and metadata as `kind` holds them, and a note on each thing that it cannot."""
    notes = []
    metadata = photo.metadata.copy()
    grey = photo.grey and kind not in vips.ALWAYS_COLOUR
    pixels = photo.rgb[..., :1] if grey else photo.rgb
    if photo.alpha is not None and (kind == "tiff" or not _is_extra(photo)):
        pixels = np.dstack([pixels, photo.alpha])
    elif photo.alpha is not None:
        notes.append("the TIFF's extra channel, which is no alpha, left out")
    if pixels.dtype == np.uint16 and kind == "avif":
        if metadata.get("bits-per-sample", 16) > 12:
            notes.append("16 bit reduced to the 12 of AVIF")
    elif pixels.dtype == np.uint16 and kind not in WIDE:
        pixels = _eighths()[pixels]
        notes.append(f"16 bit reduced to the 8 of {kind.upper()}")
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
    if "comments" in metadata and kind not in ("jpeg", "png"):
        notes.append("comment left out")
    by_exif = exif.resolution(metadata.get("exif-data", b""))
    if "xres" in metadata and kind in ("webp", "avif") and not exif.agree(by_exif, metadata):
        notes.append("resolution left out")
    if kind != "png" and (numbers := metadata.get("cicp")):
        notes.append(
            f"HDR ({profiles.HDR[numbers[1]]}) cannot be marked in {kind.upper()}: write PNG instead"
        )
    if kind != "png" and "png-texts" in metadata:
        notes.append("the PNG's texts left out")
    return pixels, metadata, tuple(notes)


@functools.cache
def _eighths() -> np.ndarray:
    """16 bits → 8: round(x / 257)."""
    return ((np.arange(65_536) + 128) // 257).astype(np.uint8)
