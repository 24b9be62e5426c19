"""PIL images as arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageCms

from maximir.errors import MaximirError

Info = dict[Any, Any]


def to_arrays(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, Info]:
    """Convert a PIL image to pixels `[H, W]` or `[H, W, 3]`, alpha `[H, W]` and the `info` of the result.

    CMYK becomes sRGB through the image's profile, as it does in files, and Lab becomes sRGB. A profile for
    other channels than the result's is left out.

    Raises:
        MaximirError: the mode has no fixed full scale.
    """
    if image.mode in ("I", "F"):
        raise MaximirError(f"PIL images of mode {image.mode} have no fixed full scale: pass an array")
    info: Info = dict(image.info)
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I;16"):
        pixels, alpha = np.asarray(image).astype(np.uint16), None
        if (
            "transparency" in info
        ):  # one grey is transparent; it stays in `info`, since there is no mode "LA;16"
            alpha = (pixels != int(info["transparency"])).astype(np.uint16)
        return pixels, alpha, _with_fitting_profile(info, grey=True)
    if image.mode == "CMYK":
        pixels, info["icc_profile"] = _from_cmyk(image)
        return pixels, None, info
    if image.mode == "LAB":
        converted = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert converted is not None  # None only if converted in place
        image = converted
    has_key = info.pop("transparency", None) is not None
    transparent = has_key or image.mode in ("LA", "PA", "RGBA")
    grey = image.mode in ("1", "L", "LA")
    info = _with_fitting_profile(info, grey=grey)
    if not transparent:
        return np.asarray(image.convert("L" if grey else "RGB")), None, info
    image = image.convert("LA" if grey else "RGBA")
    channels = np.asarray(image)
    return channels[..., 0] if grey else channels[..., :3], channels[..., -1], info


def from_arrays(pixels: np.ndarray, alpha: np.ndarray | None, info: Info) -> Image.Image:
    """Undo `to_arrays` for restored pixels."""
    if alpha is not None and "transparency" in info:
        key = int(info["transparency"])
        pixels = np.where((pixels == key) & (alpha > 0), key + 1 if key == 0 else key - 1, pixels)
    elif alpha is not None:
        pixels = np.dstack([pixels, alpha])
    image = Image.fromarray(pixels)
    image.info = info
    return image


def _from_cmyk(image: Image.Image) -> tuple[np.ndarray, bytes]:
    from maximir import images  # training restores arrays, and must not need libvips

    return images.cmyk_to_srgb(np.asarray(image), image.info.get("icc_profile"))


def _with_fitting_profile(info: Info, *, grey: bool) -> Info:
    if not (icc := info.get("icc_profile")):
        return info
    from maximir.images.metadata import profiles

    return {k: v for k, v in info.items() if k != "icc_profile" or not profiles.misfit(icc, grey=grey)}
