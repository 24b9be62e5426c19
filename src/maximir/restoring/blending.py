"""The original blended into the restored image: strength, detail and a mask.

    blended = original + strength * mask * (restored + detail * fine - original)

`fine` is the fine texture that the network took away: the luma of original - restored, minus its blur. Luma
alone, so that coloured noise does not come back. Where strength * mask is 0, the original stays bit for bit.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from maximir.errors import MaximirError, UsageError
from maximir.pixels import from_unit, to_unit
from maximir.restoring import pil, transparency
from maximir.restoring.filters import between, blur
from maximir.restoring.options import check_fraction

if TYPE_CHECKING:
    from maximir.images import Photo

FINE = 2.0  # pixels: sigma of the blur that separates fine texture from the rest
REACH = round(3 * FINE)  # pixels
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BAND = 256  # rows
FEATHER = 200  # a hard edge of a mask rises inwards over this part of its longer side,
LEAST_FEATHER = 4  # but at least over these pixels

Mask = np.ndarray | Image.Image | str | os.PathLike[str]  # [h, w], [h, w, 3] or bool; or an image file


@dataclass(frozen=True, eq=False)
class Blend:
    """Shares of the original and the restored image in the result.

    Attributes:
        strength: 0 (the original) … 1 (the restored image).
        detail: 0 … 1: fine texture of the original that comes back.
        mask: from `prepare_mask`; None: everywhere.

    Raises:
        UsageError: strength or detail is outside 0 … 1.
    """

    strength: float = 1.0
    detail: float = 0.0
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_fraction("strength", self.strength)
        check_fraction("detail", self.detail)

    @property
    def keeps_all(self) -> bool:
        """True if the restored image is the result."""
        return self.strength == 1 and self.detail == 0 and self.mask is None

    def check_size(self, height: int, width: int) -> None:
        """Raise MaximirError unless the mask, if any, scales exactly to this size."""
        if self.mask is not None and self.mask.shape[0] * width != self.mask.shape[1] * height:
            h, w = self.mask.shape
            raise MaximirError(
                f"the mask of {w} x {h} pixels does not scale exactly to the image of {width} x {height}"
            )

    def apply(self, original: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """Blend images `[H, W, 3]` of one type; writes into `restored`, row by row, and returns it.

        Floats are clipped to [0, 1] before, so that they are blended as files are.
        """
        if self.keeps_all:
            return restored
        if restored.dtype.kind == "f":
            np.clip(restored, 0, 1, out=restored)
        height, width = original.shape[:2]
        above = np.zeros((0, width), np.float32)  # luma of the last rows before they were blended
        for top in range(0, height, BAND):
            rows = slice(top, min(top + BAND, height))
            fine = None
            if self.detail:
                below = slice(top, min(rows.stop + REACH, height))
                taken = np.concatenate([above, luma(original[below]) - luma(restored[below])])
                here = slice(len(above), len(above) + rows.stop - top)
                fine = taken[here] - blur(taken[..., None], FINE)[..., 0][here]
                above = taken[max(0, here.stop - REACH) : here.stop]
            self._apply_to_rows(original[rows], restored[rows], fine, rows, height)
        return restored

    def _apply_to_rows(
        self, original: np.ndarray, restored: np.ndarray, fine: np.ndarray | None, rows: slice, height: int
    ) -> None:
        share = np.full((1, 1, 1), self.strength, np.float32)
        if self.mask is not None:
            share = share * mask_rows(self.mask, rows, height, original.shape[1])[..., None]
        before, after = to_unit(original), to_unit(restored)
        if fine is not None:
            after += np.float32(self.detail) * fine[..., None]
        mixed = from_unit(before + share * (after - before), restored.dtype)
        keep = share < 1 if fine is None else True  # elsewhere the restored pixels stay, bit for bit
        np.copyto(restored, mixed, where=keep)
        np.copyto(restored, original, where=share == 0)


def blend_photo(photo: Photo, restored: Photo, blend: Blend) -> Photo:
    """Blend a photograph with what it was restored to earlier.

    Raises:
        MaximirError: they or the mask have another size.
    """
    blend.check_size(*photo.rgb.shape[:2])
    if restored.rgb.shape != photo.rgb.shape:
        (h, w, _), (height, width, _) = restored.rgb.shape, photo.rgb.shape
        raise MaximirError(f"the restored image is {w} x {h} pixels, the original {width} x {height}")
    visible, hidden = transparency.fill_hidden(photo.rgb, photo.transparency)
    rgb = from_unit(to_unit(restored.rgb), photo.rgb.dtype)
    blend_visible(blend, photo.rgb, visible, hidden, rgb)
    return dataclasses.replace(photo, rgb=rgb)


def blend_visible(
    blend: Blend, rgb: np.ndarray, visible: np.ndarray, hidden: np.ndarray | None, restored: np.ndarray
) -> None:
    """Blend into `restored`; hidden colours stay as in `rgb`, and are seen by no others (`fill_hidden`)."""
    if hidden is not None:
        np.copyto(restored, visible, where=hidden[..., None])
    blend.apply(visible, restored)
    if hidden is not None:
        np.copyto(restored, rgb, where=hidden[..., None])


def luma(rgb: np.ndarray) -> np.ndarray:
    """Return the luma `[n, W]` float32 of rows `[n, W, 3]`."""
    return to_unit(rgb) @ LUMA


def prepare_mask(mask: Mask) -> np.ndarray:
    """Return the shares of a mask, `[h, w]` uint8: white is restored, grey partly, black and transparent not.

    Hard edges become soft inwards (`feathered`), so that no seam shows and nothing outside changes.

    Args:
        mask: an image file, turned upright; an image of PIL; or an array, `[h, w]` or `[h, w, 3]`: bool,
            integers of full scale, or floating in [0, 1].

    Raises:
        UsageError: it cannot be read, has another shape or range of values, or is all black.
    """
    name = "mask"
    try:
        if isinstance(mask, Image.Image):
            pixels, alpha, _ = pil.to_arrays(mask)
            shares = shares_shown(pixels, alpha)
        elif isinstance(mask, np.ndarray):
            shares = mask
            # Rounding and interpolation overshoot a little; NaN and other scales are mistakes.
            if shares.dtype.kind == "f" and not np.all((shares > -0.5) & (shares < 1.5)):
                raise MaximirError("floating values are from 0 to 1")
            if shares.dtype in (np.uint8, np.uint16) and shares.size and shares.max() == 1:
                full = np.iinfo(shares.dtype).max
                raise MaximirError(f"its values reach 1 of {full}; of ones and zeros, pass mask.astype(bool)")
        else:
            name = os.fspath(mask)
            shares = read_mask(mask)
        if shares.ndim not in (2, 3) or shares.size == 0 or (shares.ndim == 3 and shares.shape[2] != 3):
            raise MaximirError(f"a mask is [h, w] or [h, w, 3], not {list(shares.shape)}")
        shares = to_unit(shares.astype(np.float32) if shares.dtype == bool else shares).clip(0, 1)
    except MaximirError as error:
        raise UsageError(f"{name}: {error}") from error
    shares = shares if shares.ndim == 2 else shares @ LUMA
    shares = np.round(shares * 255).astype(np.uint8)
    if not shares.any():
        raise UsageError(f"{name}: is all black, so nothing would be restored")
    return feathered(shares)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    from maximir import images  # training restores arrays, and must not need libvips

    return mask_of(images.read(Path(path)))


def mask_of(photo: Photo) -> np.ndarray:
    """Return the mask `[H, W, 3]` float32 that a decoded file shows; what is transparent is black."""
    return shares_shown(photo.rgb, photo.transparency)


def shares_shown(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    shares = to_unit(pixels)
    if alpha is None:
        return shares
    return shares * to_unit(alpha if shares.ndim == 2 else alpha[..., None])


def feathered(shares: np.ndarray) -> np.ndarray:
    """Soften hard edges of `[h, w]` uint8 inwards; lines thinner than the feather keep their full value."""
    reach = max(LEAST_FEATHER, max(shares.shape) // FEATHER) // 2
    size = 2 * reach + 1
    x = torch.from_numpy((shares > 0).astype(np.float32))[None, None]
    x = F.avg_pool2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), (size, 1), 1)
    x = F.avg_pool2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), (1, size), 1)
    widest = F.max_pool2d(F.max_pool2d(x, (size, 1), 1, (reach, 0)), (1, size), 1, (0, reach))
    rise = (2 * x / widest.clamp(min=1e-6) - 1).clamp(0, 1)[0, 0].numpy()
    return np.round(shares * rise).astype(np.uint8)


def mask_rows(mask: np.ndarray, rows: slice, height: int, width: int) -> np.ndarray:
    """Return rows of a mask `[h, w]` uint8 scaled to `[height, width]`: float32 in [0, 1].

    Interpolated, except that nothing leaks from a pixel of the mask into a black neighbour.
    """
    h, w = mask.shape
    if (h, w) == (height, width):
        return to_unit(mask[rows])
    (above, below, down), (left, right, across) = between(rows, height, h), between(slice(0, width), width, w)
    down = down[:, None]
    upper, lower = to_unit(mask[above]), to_unit(mask[below])
    upper = upper[:, left] * (1 - across) + upper[:, right] * across
    lower = lower[:, left] * (1 - across) + lower[:, right] * across
    nearest = mask[np.arange(rows.start, rows.stop) * h // height][:, np.arange(width) * w // width]
    return np.where(nearest > 0, upper * (1 - down) + lower * down, np.float32(0))
