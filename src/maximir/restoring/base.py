"""The part that a restorer of one model and a chain of several share: kinds of images, and blending."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from maximir.errors import MaximirError
from maximir.restoring import pil, transparency
from maximir.restoring.blending import Blend, Mask, blend_visible, prepare_mask
from maximir.restoring.options import Options, Progress, silent

if TYPE_CHECKING:  # training restores arrays, and must not need libvips
    import torch
    from numpy.typing import DTypeLike

    from maximir.images import Photo

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray)


class Restored(NamedTuple):
    """Restored pixels `[H, W, 3]`, facts worth telling, and what each link of a chain did."""

    rgb: np.ndarray
    notes: tuple[str, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()
    unchanged: bool = False  # the pixels are the input's: nothing was to be done


class ImageRestorer(ABC):
    """Restores images of every kind. Its subclasses restore pixels.

    Attributes:
        options: as they were given.
        device: what "auto" means here.
        precision: "fp32" or "bf16"; "auto" where it depends on the image.
    """

    options: Options
    device: torch.device
    precision: str

    @property
    @abstractmethod
    def files(self) -> list[tuple[Path, float]]:
        """The weights that decide the pixels, and their strengths."""

    def precision_for(self, dtype: DTypeLike) -> str:
        """Return the precision for images of this type: "fp32" or "bf16"."""
        if self.precision == "auto":
            return "bf16" if np.dtype(dtype) == np.uint8 else "fp32"
        return self.precision

    @abstractmethod
    def restore_visible(
        self, rgb: np.ndarray, *, grey: bool, progress: Progress, reserve: int, view: str | None
    ) -> Restored:
        """Restore `[H, W, 3]` without hidden colours → a new array of the same type; grey if `grey`."""

    def __call__(
        self,
        image: AnyImage,
        *,
        strength: float | None = None,
        detail: float | None = None,
        mask: Mask | None = None,
        progress: Progress = silent,
    ) -> AnyImage:
        """Restore one image; the result is of the same kind and size.

        Args:
            image: a `PIL.Image` (8 bit, or 16-bit grey; transparency is kept), or an array `[H, W, 3]`,
                `[H, W]` or `[H, W, 4]` (alpha is kept): uint8, uint16, or floating in [0, 1].
            strength, detail: instead of the options.
            mask: what to restore: white wholly, grey partly. An image file, or an array `[h, w]` that scales
                exactly to the image: bool, uint8, uint16, or floating in [0, 1]. The rest stays bit for bit.

        Returns:
            The same kind. Integers are rounded; floats are not clipped, as in the field's tables.

        Raises:
            MaximirError: another kind of image, an empty one, or one that does not fit into memory.
            UsageError: strength or detail is outside 0 … 1, or the mask cannot be used.
        """
        blend = self.blend(strength, detail, mask)
        if isinstance(image, Image.Image):
            pixels, alpha, info = pil.to_arrays(image)
            return pil.from_arrays(self._restore_array(pixels, progress, blend, alpha), alpha, info)
        if isinstance(image, np.ndarray):
            return self._restore_array(image, progress, blend)
        raise MaximirError(f"images are PIL.Image or numpy.ndarray, not {type(image).__name__}")

    def restore_file(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        *,
        strength: float | None = None,
        detail: float | None = None,
        mask: Mask | None = None,
        overwrite: bool = False,
    ) -> tuple[str, ...]:
        """Restore one image file as `maximir restore` does: 16 bits, profiles and metadata are kept.

        The format is that of the suffix of `target`, which appears whole or not at all.

        Args:
            strength, detail, mask: as for images.

        Returns:
            Facts worth telling, such as what the format could not hold.

        Raises:
            MaximirError: `source` cannot be read or restored, or `target` exists or cannot be written.
            UsageError: strength or detail is outside 0 … 1, or the mask cannot be used.
        """
        from maximir import images

        source, target = Path(source), Path(target)
        blend = self.blend(strength, detail, mask)
        if not overwrite and os.path.lexists(target):
            raise MaximirError(f"{target} exists; give overwrite=True to replace it")
        if target.suffix.lower() not in images.WRITABLE:
            kinds = " ".join(images.WRITABLE)
            raise MaximirError(f"{target}: no photograph is written under this suffix; use one of {kinds}")
        if not target.parent.is_dir():
            raise MaximirError(f"{target.parent}: no such folder; make it first")
        try:
            photo = images.read(source)
            images.check_fits(photo, target)
            restored = self.restore_photo(photo, blend=blend)
        except MaximirError as error:
            raise MaximirError(f"{source}: {error}") from error
        try:
            return restored.notes + images.write(restored, target)
        except MaximirError as error:
            raise MaximirError(f"{target}: {error}") from error

    def restore_photo(
        self,
        photo: Photo,
        *,
        progress: Progress = silent,
        reserve: int = 0,
        view: str | None = None,
        blend: Blend | None = None,
    ) -> Photo:
        """Restore a decoded file: alpha and metadata stay; a grey image stays grey, in any file.

        One that stays as it is (strength 0, or nothing to mend) is written as the file that it came from.

        Args:
            blend: instead of the options; None: as there.
        """
        blend = blend or self.blend()
        restored = self._restore_rgb(
            photo.rgb,
            photo.transparency,
            blend,
            grey=photo.grey,
            progress=progress,
            reserve=reserve,
            view=view,
        )
        if restored.unchanged:
            return dataclasses.replace(photo, notes=restored.notes, unchanged=photo.notes)
        notes = photo.notes + restored.notes
        return dataclasses.replace(photo, rgb=restored.rgb, notes=notes, steps=restored.steps, source=b"")

    def blend(
        self, strength: float | None = None, detail: float | None = None, mask: Mask | None = None
    ) -> Blend:
        """Return how results are blended with their originals; None: as in the options.

        Raises:
            UsageError: strength or detail is outside 0 … 1, or the mask cannot be used.
        """
        return Blend(
            self.options.strength if strength is None else strength,
            self.options.detail if detail is None else detail,
            None if mask is None else prepare_mask(mask),
        )

    def _restore_array(
        self, image: np.ndarray, progress: Progress, blend: Blend, alpha: np.ndarray | None = None
    ) -> np.ndarray:
        if image.size == 0:
            raise MaximirError(f"the image is empty: its shape is {list(image.shape)}")
        match image.shape:
            case (_, _):
                rgb = np.repeat(image[..., None], 3, axis=-1)
                return self._restore_rgb(rgb, alpha, blend, grey=True, progress=progress).rgb[..., 0]
            case (_, _, 3):
                return self._restore_rgb(image, alpha, blend, progress=progress).rgb
            case (_, _, 4):
                rgb = self._restore_rgb(image[..., :3], image[..., 3], blend, progress=progress).rgb
                return np.concatenate([rgb, image[..., 3:]], axis=-1)
        raise MaximirError(f"arrays are [H, W, 3], [H, W] or [H, W, 4], not {list(image.shape)}")

    def _restore_rgb(
        self,
        rgb: np.ndarray,
        alpha: np.ndarray | None,
        blend: Blend,
        *,
        grey: bool = False,
        progress: Progress = silent,
        reserve: int = 0,
        view: str | None = None,
    ) -> Restored:
        """Restore `[H, W, 3]`; colours where `alpha` `[H, W]` is 0 stay, and do not change the others.

        A grey image stays grey, as it does in a file.
        """
        blend.check_size(*rgb.shape[:2])
        if blend.strength == 0:
            return Restored(rgb.copy(), unchanged=True)
        visible, hidden = transparency.fill_hidden(rgb, alpha)
        reserve += 0 if hidden is None else visible.nbytes
        restored = self.restore_visible(
            visible, grey=grey or is_grey(visible), progress=progress, reserve=reserve, view=view
        )
        if restored.unchanged:
            return restored._replace(rgb=rgb.copy())
        blend_visible(blend, rgb, visible, hidden, restored.rgb)
        return restored


def is_grey(rgb: np.ndarray) -> bool:
    r, g, b = (rgb[..., c] for c in range(3))
    return bool((r == g).all() and (g == b).all())
