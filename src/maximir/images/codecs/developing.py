"""Camera raw files developed by LibRaw, through the optional library rawpy.

Plainly: the camera's white balance, sRGB, 16 bits; no sharpening, no noise reduction, no lens corrections.
Exposure is that of the sensor: where green is full, a picture would be white. What red and blue sensors hold
beyond is kept, compressed together with the brightest fifth.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from maximir.errors import DamagedImage, TooLarge, UnsupportedImage
from maximir.images.codecs import raw, raw_metadata, tiff
from maximir.images.codecs.decoded import CheckSize, Decoded
from maximir.images.codecs.decoders import optional
from maximir.images.metadata import profiles

KNEE = 0.8  # of linear light; what is brighter is compressed
EXPORT = "export it as a 16-bit TIFF from your raw program"


def library(called: str) -> Any:
    """Return rawpy.

    Raises:
        UnsupportedImage: it is not installed.
    """
    return optional("rawpy", f"camera raw ({called})", "raw")


def develop(data: bytes, called: str, check_size: CheckSize) -> Decoded:
    """Develop a raw file of the kind `called`, upright, [H, W, 3 or 1] uint16.

    Raises:
        UnsupportedImage: the library is missing, or does not know this camera or kind of file.
        DamagedImage: truncated or broken.
        TooLarge: what `check_size` raises, or LibRaw's own limit.
    """
    rawpy = library(called)
    for picture in tiff.pictures(data):  # LibRaw takes absurd sizes for unknown files
        if picture.photometric in raw.SENSOR:
            check_size(picture.width, picture.height)
    version = ".".join(map(str, rawpy.libraw_version))
    try:
        with rawpy.RawPy() as file:
            file.open_buffer(io.BytesIO(data))
            sizes = file.sizes
            check_size(max(sizes.raw_width, sizes.iwidth), max(sizes.raw_height, sizes.iheight))
            file.unpack()
            balance, stated = white_balance(file.camera_whitebalance, file.daylight_whitebalance)
            linear = file.postprocess(
                use_camera_wb=True,
                output_color=rawpy.ColorSpace.sRGB,
                output_bps=16,
                no_auto_bright=True,
                highlight_mode=rawpy.HighlightMode.Blend,
                gamma=(1, 1),
            )
    except rawpy.LibRawFileUnsupportedError as error:
        raise UnsupportedImage(
            f"LibRaw {version} does not know this camera raw file ({called}); {EXPORT}"
        ) from error
    except (rawpy.LibRawTooBigError, rawpy.LibRawUnsufficientMemoryError) as error:
        raise TooLarge(
            f"developing the camera raw file ({called}) takes more memory than there is"
        ) from error
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        raise DamagedImage(
            f"the camera raw file ({called}) is truncated or damaged, or of a kind that "
            f"LibRaw {version} does not develop"
        ) from error
    linear = linear.reshape(*linear.shape[:2], -1)
    metadata, notes = raw_metadata.described(data, called)
    metadata["icc-profile-data"] = profiles.profile(profiles.Colours(), grey=linear.shape[2] < 3)
    how = "the camera's white balance" if stated else "white balance for daylight, as the file states none"
    developed = f"{called} developed by LibRaw {version}: {how}, sRGB, no sharpening, no noise reduction"
    return Decoded(tone_curve(balance)[linear], metadata, (developed, *notes), turned=sizes.flip != 0)


def white_balance(camera: Sequence[float], daylight: Sequence[float]) -> tuple[list[float], bool]:
    """Return the multipliers of the colours that LibRaw uses, and whether they are the camera's."""
    stated = camera[0] > 0 and camera[2] > 0
    found = [each for each in (camera if stated else daylight) if math.isfinite(each) and each > 0]
    return found or [1.0], stated


def tone_curve(balance: Sequence[float]) -> np.ndarray:
    """Return the table uint16 linear → uint16 sRGB for pictures that LibRaw darkened to keep highlights.

    LibRaw scales the largest multiplier to 1 and makes full pixels grey, as bright as the mean of the
    multipliers: these become white. Below KNEE all is as bright as the smallest multiplier, 1, would have it.
    """
    least = min(balance)
    light = np.arange(65_536) / 65_535 * (max(balance) / least)
    white = sum(balance) / len(balance) / least
    over, most = np.maximum(light - KNEE, 0) / (1 - KNEE), (white - KNEE) / (1 - KNEE)
    light = np.minimum(np.minimum(light, KNEE) + (1 - KNEE) * over / (1 + over * (1 - 1 / most)), 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(65_535 * encoded).astype(np.uint16)
