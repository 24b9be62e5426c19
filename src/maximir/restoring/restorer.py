"""Any photograph through the network: pad as the official evaluation, run, crop, same kind back."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maximir.engine import network as engine
from maximir.engine import precision as arithmetic
from maximir.engine.sweeps import Streaming
from maximir.errors import NotEnoughMemory, UsageError
from maximir.models import choice
from maximir.models.cards import ModelCard
from maximir.models.checkpoint import load
from maximir.network.model import Maxim
from maximir.pixels import from_unit, to_unit
from maximir.restoring import views, windows
from maximir.restoring.base import ImageRestorer, Restored
from maximir.restoring.isolation import unaffected
from maximir.restoring.options import Options, Progress, share_progress, silent
from maximir.restoring.padding import Window, pad, reflected
from maximir.sizes import in_words

if TYPE_CHECKING:  # training restores arrays, and must not need libvips
    from numpy.typing import DTypeLike

log = logging.getLogger("maximir")

BAND = 256  # rows
DEVICES = ("cpu", "cuda")  # others would need a plan for their memory
LEAST_GPU_MEMORY = 512 << 20  # bytes: weights, libraries and a small image
LONGEST_REASON = 200  # characters of what torch says
POSES = tuple(
    (turns, mirrored) for mirrored in (False, True) for turns in range(4)
)  # of an ensemble; as it is, first


@torch.inference_mode()
def restore_batch(model: Maxim, image: Tensor, streaming: Streaming | None = None) -> Tensor:
    """Restore `[N, 3, H, W]` in [0, 1], any size → the same shape, float32, not clipped."""
    padded, window = pad(image, model.config.size_multiple)
    return window.crop(engine.run(model, padded, streaming)[-1][-1]).float()


@contextlib.contextmanager
def memory_errors_name(height: int, width: int) -> Iterator[None]:
    """Name the image in errors of memory, also where it ended in one of the image's parts."""
    why = "need more memory than there is"
    try:
        yield
    except NotEnoughMemory as error:
        raise error.of(height, width) from None
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise NotEnoughMemory(height, width, why) from error
    except RuntimeError as error:  # the CPU allocator has no type of its own
        if "memory" in str(error):
            raise NotEnoughMemory(height, width, why) from error
        raise


class Restorer(ImageRestorer):
    """Restores images with one model, loaded once.

    Args:
        path_or_name: what `load_model` takes: weights, an embedded model's name, or a task ("denoise").
        device, precision, max_memory, scratch, ensemble, view, stages, strength, detail: see `Options`.

    Attributes:
        options: as they were given.
        path: the file of weights.
        device: what "auto" means here.
        precision: "fp32" or "bf16"; "auto" where it depends on the image.
        task: what the model is for; "" if neither its name nor its file says.

    Calls take, besides images:
        progress: called with the part of an image (or batch) that is done, 0 … 1, after each strip of the
            network (of a small image, with 0 until it is done). An exception that it raises ends the work.
        reserve: bytes that others in this process may take meanwhile.
        view: instead of the option; None: as there.

    Raises:
        MaximirError: the model or the device cannot be used.
    """

    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        device: str = Options.device,
        precision: str = Options.precision,
        max_memory: int | str | None = Options.max_memory,
        *,
        scratch: str | os.PathLike[str] | None = Options.scratch,
        ensemble: bool = Options.ensemble,
        view: str = Options.view,
        stages: int | None = Options.stages,
        strength: float = Options.strength,
        detail: float = Options.detail,
    ) -> None:
        self.options = Options(
            device, precision, max_memory, scratch, ensemble, view, stages, strength, detail
        )
        self.scratch = None if scratch is None else scratch_folder(scratch)
        self.poses = POSES if ensemble else POSES[:1]
        self.device = choose_device(device)
        self.precision = resolve_precision(precision, self.device)
        chosen = choice.choose(path_or_name)
        self.path = chosen.path.absolute()
        self.model, self.task = self._load(chosen)

    def __repr__(self) -> str:
        return f"<Restorer {self.path.name}, {self.device}, {self.precision}>"

    @classmethod
    def with_options(cls, path_or_name: str | os.PathLike[str], options: Options) -> Restorer:
        return cls(path_or_name, **vars(options))

    @unaffected()
    @torch.inference_mode(False)
    def _load(self, chosen: ModelCard) -> tuple[Maxim, str]:
        model, task = load(chosen, self.options.stages)
        return model.to(self.device), task

    def restore_visible(
        self,
        rgb: np.ndarray,
        *,
        grey: bool,
        progress: Progress = silent,
        reserve: int = 0,
        view: str | None = None,
    ) -> Restored:
        (restored,) = self.restore_arrays([rgb], [grey], progress=progress, reserve=reserve, view=view)
        return Restored(
            restored, (views.NOTE,) if self.way(rgb.shape[0], rgb.shape[1], view) == "views" else ()
        )

    def way(self, height: int, width: int, view: str | None = None) -> Literal["whole", "views", "windows"]:
        """Return the way to restore an image of this size: whole, in `views` or in `windows`."""
        if (view or self.options.view) == "exact":
            return "whole"
        if self.task in views.GLOBAL_TASKS:
            return "views" if views.is_large(height, width) else "whole"
        multiple = self.model.config.size_multiple
        unknown = not self.task and max(height, width) > windows.LARGEST * multiple  # it may change the light
        return "windows" if windows.several(height, width, multiple) and not unknown else "whole"

    @property
    def files(self) -> list[tuple[Path, float]]:
        return [(self.path, 1.0)]

    def features_for(self, dtype: DTypeLike) -> torch.dtype:
        """Return the type of feature maps for images of this type."""
        return torch.bfloat16 if self.precision_for(dtype) == "bf16" else torch.float32

    @unaffected()
    def restore_arrays(
        self,
        images: Sequence[np.ndarray],
        grey: Sequence[bool] | None = None,
        *,
        progress: Progress = silent,
        reserve: int = 0,
        view: str | None = None,
    ) -> list[np.ndarray]:
        """Restore images of one size together: `[H, W, 3]` each → the same shapes and types.

        Args:
            grey: True for each image that gets three equal channels again; None: none does.
        """
        grey = grey or [False] * len(images)
        pairs = list(zip(images, grey, strict=True))
        features, *others = {self.features_for(image.dtype) for image in images}
        h, w = images[0].shape[:2]
        way = self.way(h, w, view)
        if len(pairs) > 1 and (others or way == "views"):  # each alone
            return [
                self.restore_arrays(
                    [image],
                    [flag],
                    progress=share_progress(progress, number, [1] * len(pairs)),
                    reserve=reserve,
                    view=view,
                )[0]
                for number, (image, flag) in enumerate(pairs)
            ]
        if way == "windows":
            reserve += sum(image.nbytes for image in images)

        def restore(parts: Sequence[np.ndarray], progress: Progress = silent) -> list[np.ndarray]:
            return self._restore_whole(parts, grey, features, progress, reserve)

        with memory_errors_name(h, w):
            if way == "views":
                return [views.restore_in_views(images[0], lambda tile: restore([to_unit(tile)])[0], progress)]
            if way == "windows":
                return windows.restore_in_windows(images, restore, progress, self.model.config.size_multiple)
            return restore(images, progress)

    def _restore_whole(
        self,
        images: Sequence[np.ndarray],
        grey: Sequence[bool],
        features: torch.dtype,
        progress: Progress,
        reserve: int,
    ) -> list[np.ndarray]:
        dtypes = [image.dtype for image in images]
        if len(self.poses) == 1:
            return self._restore_once(images, dtypes, grey, features, progress, reserve)
        means = [np.zeros(image.shape, np.float32) for image in images]
        for number, pose in enumerate(self.poses):
            restored = self._restore_once(
                [turn(image, pose) for image in images],
                [mean.dtype for mean in means],
                grey,
                features,
                share_progress(progress, number, [1] * len(self.poses)),
                reserve,
            )
            for mean, each in zip(means, restored, strict=True):
                mean += turn_back(each, pose) / np.float32(len(self.poses))
        return [in_bands(mean, dtype) for mean, dtype in zip(means, dtypes, strict=True)]

    def _restore_once(
        self,
        images: Sequence[np.ndarray],
        dtypes: Sequence[np.dtype],
        grey: Sequence[bool],
        features: torch.dtype,
        progress: Progress,
        reserve: int,
    ) -> list[np.ndarray]:
        """One pass through the network."""
        streaming = self._streaming(images, features, progress, reserve)
        with torch.inference_mode():
            padded, window = pad_arrays(images, self.model.config.size_multiple)
            outputs = engine.run(self.model, padded.to(self.device), streaming)[-1][-1]
            progress(1.0)
            del padded
            return [
                to_array(window.crop(output), dtype, grey=flag)
                for output, dtype, flag in zip(outputs, dtypes, grey, strict=True)
            ]

    def _streaming(
        self, images: Sequence[np.ndarray], features: torch.dtype, progress: Progress, reserve: int
    ) -> Streaming:
        """Plan how these images go through the network within the memory that there is."""
        from maximir.restoring import memory  # training restores too, and must not need psutil

        config, (h, w, _) = self.model.config, images[0].shape
        shape = (len(images), h, w)
        if self.device.type == "cpu" and memory.is_small(config, shape, self.options.max_bytes):
            return Streaming(features=features, strip_done=lambda strips: progress(0.0))
        chosen = memory.plan(
            config,
            shape,
            features,
            device=self.device,
            max_memory=self.options.max_bytes,
            scratch=self.scratch,
            # The results; and in a folder, photographs read ahead and being written.
            more=self.result_bytes(images) + reserve,
        ).streaming
        chosen.strip_done = memory.Shares(config, features, progress)
        return chosen

    def result_bytes(self, images: Sequence[np.ndarray]) -> int:
        """Return the bytes of results and copies; an ensemble also holds float32 means and results."""
        besides = 3 * sum(image.size * 4 for image in images) if len(self.poses) > 1 else 0
        return 3 * sum(image.nbytes for image in images) + besides


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return "fp32" or "bf16", or "auto" where it depends on the image. Warns where bf16 is emulated."""
    if precision == "auto" and not arithmetic.bf16_is_faster(device):
        return "fp32"
    if precision == "bf16" and arithmetic.bf16_is_emulated(device):
        log.warning("maximir: %s", arithmetic.EMULATED)
    return precision


def choose_device(name: str) -> torch.device:
    """Return the device that `name` means; "auto": a GPU, or the processor if there is none or it fails.

    Raises:
        UsageError: unknown, missing or unusable device.
    """
    name = str(name)  # callers pass a torch.device, too
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        try:
            return choose_device("cuda")
        except UsageError as error:
            log.warning("maximir: %s; computing on the processor instead", error)
            return torch.device("cpu")
    if name.partition(":")[0] not in DEVICES:
        raise UsageError(f"device {name!r} cannot be used: maximir computes on {' and '.join(DEVICES)}")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            try_gpu(device)
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"device {name!r} cannot be used ({reason[:LONGEST_REASON]})") from error
    return device


def try_gpu(device: torch.device) -> None:
    """Compute a convolution on a GPU: drivers, kernels and libraries fail at their first use.

    Raises:
        RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError: it fails.
    """
    free, _ = torch.cuda.mem_get_info(device)
    if free < LEAST_GPU_MEMORY:
        raise RuntimeError(f"only {in_words(free)} of its memory are free")
    image = torch.ones(1, 3, 8, 8, device=device, dtype=torch.float32)
    functional.conv2d(image, image[..., :3, :3]).sum().item()


def scratch_folder(folder: str | os.PathLike[str]) -> Path:
    from maximir.engine import machine

    return machine.scratch_folder(Path(folder))


def bands(height: int) -> Iterator[slice]:
    """Return slices of a few rows, so that conversions need no second image in floating point."""
    return (slice(row, min(row + BAND, height)) for row in range(0, height, BAND))


def turn(image: np.ndarray, pose: tuple[int, bool]) -> np.ndarray:
    """View `[H, W, 3]` turned by quarters, then perhaps mirrored."""
    turns, mirrored = pose
    turned = np.rot90(image, turns)
    return turned[:, ::-1] if mirrored else turned


def turn_back(image: np.ndarray, pose: tuple[int, bool]) -> np.ndarray:
    """Undo `turn`."""
    turns, mirrored = pose
    return np.rot90(image[:, ::-1] if mirrored else image, -turns)


def pad_arrays(images: Sequence[np.ndarray], multiple: int) -> tuple[Tensor, Window]:
    """Pad `[H, W, 3]` of one size, any type, to multiples → a batch [N, 3, H, W], channels last in memory."""
    h, w = images[0].shape[:2]
    (rows, top), (columns, left) = reflected(h, multiple), reflected(w, multiple)
    padded = torch.empty(len(images), len(rows), len(columns), 3, dtype=torch.float32, device="cpu")
    for image, target in zip(images, padded.numpy(), strict=True):
        for band in bands(len(rows)):
            target[band] = to_unit(image[rows[band]])[:, columns]
    return padded.permute(0, 3, 1, 2), Window(top, left, h, w)


def in_bands(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Apply `from_unit` to `[H, W, 3]` in bands."""
    result = np.empty(image.shape, dtype)
    for band in bands(len(result)):
        result[band] = from_unit(image[band], dtype)
    return result


def to_array(image: Tensor, dtype: np.dtype, *, grey: bool) -> np.ndarray:
    """Convert `[3, H, W]` from the network to `[H, W, 3]` of this type."""
    result = np.empty((*image.shape[1:], 3), dtype)
    for band in bands(len(result)):
        values = image[:, band].permute(1, 2, 0).float().cpu().numpy()
        result[band] = from_unit(values.mean(axis=-1, keepdims=True) if grey else values, result.dtype)
    return result
