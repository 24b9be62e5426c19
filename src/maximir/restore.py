"""Any photograph through the network: pad as the official evaluation, run, crop, same kind back."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maximir.checkpoint import load_model
from maximir.config import SIZE_MULTIPLE
from maximir.errors import MaximirError, UsageError
from maximir.pixels import from_unit, to_unit

if TYPE_CHECKING:  # training restores arrays, and must not need libvips
    from maximir.images import Photo

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray)


class Window(NamedTuple):
    """Where the image lies in the padded one."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, image: Tensor) -> Tensor:
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


def reflected(size: int) -> tuple[np.ndarray, int]:
    """Indices that pad one axis as the official `run_eval.py`, and where the original starts.

    First to even size at the end, then centred to a multiple of 64; NumPy's `reflect`, which reflects
    again and again where the padding is larger than the image.
    """
    even = size + size % 2
    before = -even % SIZE_MULTIPLE // 2
    indices = np.pad(np.arange(size), (0, even - size), mode="reflect")
    return np.pad(indices, before, mode="reflect"), before


def pad(image: Tensor) -> tuple[Tensor, Window]:
    """`[..., H, W]` of any size → reflect-padded to multiples of 64, and the window to crop again."""
    h, w = image.shape[-2:]
    rows, top = reflected(h)
    columns, left = reflected(w)
    padded = image[..., torch.from_numpy(rows), :][..., torch.from_numpy(columns)]
    return padded, Window(top, left, h, w)


@torch.inference_mode()
def restore_batch(model: nn.Module, image: Tensor) -> Tensor:
    """Restore `[N, 3, H, W]` in [0, 1], any size → the same shape, float32, not clipped."""
    padded, window = pad(image)
    restored: Tensor = window.crop(model(padded)[-1][-1])
    return restored.float()


class Restorer:
    """Restores photographs with one model, loaded once.

    Args:
        path_or_name: what `load_model` takes: weights, an embedded model's name, or a task ("denoise").
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …
        precision: "fp32", or "bf16" for faster and less exact arithmetic.
        max_memory: must be None; bounded memory comes with the streaming engine.

    Raises:
        MaximirError: the model or the device cannot be used.
    """

    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        device: str = "auto",
        precision: str = "fp32",
        max_memory: None = None,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise UsageError(f'precision must be "fp32" or "bf16", not {precision!r}')
        if max_memory is not None:
            raise UsageError("max_memory is not supported yet: leave it out")
        self.precision = precision
        self.device = choose_device(device)
        self.model = load_model(path_or_name).to(self.device)

    def __call__(self, image: AnyImage) -> AnyImage:
        """Restore one image; the result is of the same kind and size.

        Args:
            image: a `PIL.Image` (8 bit, or 16-bit grey; transparency is kept), or an array `[H, W, 3]`,
                `[H, W]` or `[H, W, 4]` (alpha is kept): uint8, uint16, or floating in [0, 1].

        Returns:
            The same kind. Integers are rounded; floats are not clipped, as in the field's tables.

        Raises:
            MaximirError: another kind of image, an empty one, or one that does not fit into memory.
        """
        if isinstance(image, Image.Image):
            return self._restore_pil(image)
        if isinstance(image, np.ndarray):
            return self._restore_array(image)
        raise MaximirError(f"images are PIL.Image or numpy.ndarray, not {type(image).__name__}")

    def restore_photo(self, photo: Photo) -> Photo:
        """Restore a decoded file: alpha and metadata stay; a grey picture stays grey, in any file."""
        r, g, b = (photo.rgb[..., c] for c in range(3))
        grey = photo.grey or bool((r == g).all() and (g == b).all())
        rgb = self._restore_rgb(photo.rgb, grey=grey)
        return dataclasses.replace(photo, rgb=rgb)

    def _restore_rgb(self, rgb: np.ndarray, *, grey: bool = False) -> np.ndarray:
        """`[H, W, 3]` → the same shape and type; grey: three equal channels again."""
        tensor = torch.from_numpy(to_unit(rgb)).permute(2, 0, 1)[None].to(self.device)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                restored = restore_batch(self.model, tensor)[0]
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise out_of_memory(rgb) from error
        except RuntimeError as error:  # the CPU allocator has no type of its own
            if "memory" in str(error):
                raise out_of_memory(rgb) from error
            raise
        if grey:
            restored = restored.mean(dim=0, keepdim=True).expand(3, -1, -1)
        return from_unit(restored.permute(1, 2, 0).cpu().numpy(), rgb.dtype)

    def _restore_array(self, image: np.ndarray) -> np.ndarray:
        if image.size == 0:
            raise MaximirError(f"the image is empty: its shape is {list(image.shape)}")
        match image.shape:
            case (_, _):
                return self._restore_rgb(np.repeat(image[..., None], 3, axis=-1), grey=True)[..., 0]
            case (_, _, 3):
                return self._restore_rgb(image)
            case (_, _, 4):
                return np.concatenate([self._restore_rgb(image[..., :3]), image[..., 3:]], axis=-1)
        raise MaximirError(f"arrays are [H, W, 3], [H, W] or [H, W, 4], not {list(image.shape)}")

    def _restore_pil(self, image: Image.Image) -> Image.Image:
        if image.mode in ("I", "F"):
            raise MaximirError(f"PIL images of mode {image.mode} have no fixed full scale: pass an array")
        if image.mode in ("La", "RGBa"):  # premultiplied alpha
            image = image.convert(image.mode.upper())
        transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
        if image.mode.startswith("I;16"):
            restored = Image.fromarray(self._restore_array(np.asarray(image).astype(np.uint16)))
        elif image.mode in ("1", "L", "LA"):
            restored = Image.fromarray(self._restore_array(np.asarray(image.convert("L"))))
            if transparent:
                restored = Image.merge("LA", (restored, image.convert("LA").getchannel("A")))
        else:
            restored = Image.fromarray(
                self._restore_array(np.asarray(image.convert("RGBA" if transparent else "RGB")))
            )
        restored.info = {key: value for key, value in image.info.items() if key != "transparency"}
        return restored


def choose_device(name: str) -> torch.device:
    """The device that `name` means.

    Raises:
        UsageError: unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"device {name!r} cannot be used ({reason})") from error
    return device


def out_of_memory(rgb: np.ndarray) -> MaximirError:
    h, w = rgb.shape[:2]
    return MaximirError(f"not enough memory for an image of {w} x {h} pixels")
