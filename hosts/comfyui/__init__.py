"""A node for ComfyUI that restores photographs with MAXIM. Requires maximir in ComfyUI's Python."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io
from PIL import Image

from maximir import MaximirError, Restorer, UsageError
from maximir.errors import NotEnoughMemory
from maximir.hosts import spandrel
from maximir.models import choice
from maximir.models.catalogue import TASKS
from maximir.restoring import estimate, views
from maximir.restoring.options import Progress
from maximir.restoring.restorer import DEVICES

ALL_STAGES = 0
PRECISIONS = ["fp32", "bf16"]
LARGE = 1 << 20  # pixels from which a picture gets previews
PREVIEW = 320  # pixels: longer side of a preview
PREVIEW_EVERY = 5  # percent

Preview = tuple[str, Image.Image, int]  # as ComfyUI's progress bar takes it


class Percentage:
    """ComfyUI's progress bar; shows each percent once.

    Called with the parts that are done of all pictures and of the present one, after each strip of the
    network: *Cancel* stops pictures of any size midway.
    """

    def __init__(self) -> None:
        self.bar, self.shown = ProgressBar(100), -1
        self.preview: Callable[[float], Preview] | None = None  # of the present picture

    def __call__(self, part: float, of_picture: float) -> None:
        model_management.throw_exception_if_processing_interrupted()
        percent = int(100 * part)
        if percent > self.shown:
            self.shown = percent
            due = percent % PREVIEW_EVERY == 0
            preview = self.preview(of_picture) if due and self.preview is not None else None
            self.bar.update_absolute(percent, 100, preview)


def preview_of(picture: np.ndarray, restorer: Restorer) -> Callable[[float], Preview]:
    """Return previews of [H, W, 3]: a small copy, restored from its top down to the part that is done."""
    scale = PREVIEW / max(picture.shape[:2])
    before = views.shrink(picture, *(max(1, round(side * scale)) for side in picture.shape[:2]))
    after = restorer(before)

    def preview(part: float) -> Preview:
        rows = round(part * len(before))
        shown = np.concatenate([after[:rows], before[rows:]])
        return "JPEG", Image.fromarray((shown.clip(0, 1) * 255).astype(np.uint8)), PREVIEW

    return preview


def offered() -> list[str]:
    """Return the models to choose from: tasks, then the models on this machine."""
    return list(dict.fromkeys([*TASKS, *sorted(choice.available())]))


def check_model(model: str, stages: int) -> tuple[str, int | None]:
    """Return the model's name and its stages, None: all.

    Raises:
        UsageError: the model is not offered. ComfyUI does not check, and whoever reaches its port could
            otherwise name any file, or an address that this machine would ask.
    """
    if model not in offered():
        raise UsageError(f"the model {model!r} is not offered: choose one from the node's list")
    card = choice.choose(model)
    return card.name, min(max(stages, ALL_STAGES), card.header.stages or stages) or None


def check_batch(image: torch.Tensor) -> None:
    """Raise UsageError unless the batch is [B, H, W, C] with a picture in it, grey or in colour."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or image.numel() == 0:
        raise UsageError(
            f"the image is {list(image.shape)}: give [B, H, W, C] with at least one picture and C = 1, 3 or 4"
        )


def masks_of(mask: torch.Tensor | None, count: int) -> list[np.ndarray | None]:
    """Return a mask [h, w] for each picture, from [h, w], or [B, h, w] with one for all or one for each.

    Raises:
        UsageError: another number of masks.
    """
    if mask is None:
        return [None] * count
    masks = mask.float().cpu().numpy().reshape(-1, *mask.shape[-2:])
    if len(masks) not in (1, count):
        raise UsageError(f"there are {len(masks)} masks for {count} pictures: give one, or one for each")
    return [masks[number % len(masks)] for number in range(count)]


@functools.lru_cache(maxsize=2)  # ComfyUI runs a node many times, mostly with the same model
def load(model: str, stages: int | None, precision: str, device: str) -> tuple[Restorer, ModelPatcher]:
    """Return a restorer, and its model as ComfyUI manages it: loads, counts and unloads."""
    restorer = Restorer(model, device, precision, stages=stages)
    away = model_management.unet_offload_device()
    return restorer, ModelPatcher(restorer.model, load_device=restorer.device, offload_device=away)


def ready(model: str, stages: int | None, precision: str, device: str, height: int, width: int) -> Restorer:
    """Return a restorer on its device, where ComfyUI has made room for a picture of this size."""
    restorer, patcher = load(model, stages, precision, device)
    needed = estimate.gpu_bytes(restorer, height, width) if restorer.device.type != "cpu" else 0
    model_management.load_models_gpu([patcher], needed, force_full_load=True)
    restorer.model.to(restorer.device)  # with --novram ComfyUI leaves a part away
    return restorer


class MaximRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaximRestore",
            display_name="Restore (MAXIM)",
            category="image/restoration",
            description="Denoise, deblur, derain, dehaze, enhance, retouch, dejpeg: photographs of any size.",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input(
                    "model",
                    options=offered(),
                    tooltip="A task uses its best model on this machine; `maximir get` fetches more.",
                ),
                io.Int.Input(
                    "stages",
                    default=ALL_STAGES,
                    min=ALL_STAGES,
                    max=3,
                    tooltip="0: all stages. Fewer are faster, with slightly lower quality.",
                ),
                io.Combo.Input("precision", options=PRECISIONS, default="fp32", tooltip="bf16: faster."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0: the image unchanged. 1: restored.",
                ),
                io.Float.Input(
                    "detail",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Part of the image's fine texture, and grain, that comes back.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Restores only where it is white, and partly where grey."
                ),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        model: str,
        stages: int,
        precision: str,
        strength: float = 1.0,
        detail: float = 0.0,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        """Restore [B, H, W, C] in [0, 1]; alpha stays unchanged, and grey becomes three channels."""
        name, some_stages = check_model(model, stages)
        check_batch(image)
        masks = masks_of(mask, len(image))
        if image.shape[-1] == 1:
            image = image.expand(-1, -1, -1, 3)
        restored = image.clone()
        height, width = image.shape[1:3]
        device = model_management.get_torch_device()
        restorer = ready(
            name, some_stages, precision, str(device) if device.type in DEVICES else "cpu", height, width
        )
        show = Percentage()

        def restore(picture: np.ndarray, mask: np.ndarray | None, report: Progress) -> np.ndarray:
            report(0)  # interrupted already?
            if height * width >= LARGE:
                show.preview = preview_of(picture, restorer)
            return restorer(picture, strength=strength, detail=detail, mask=mask, progress=report)

        for number, picture in enumerate(image):  # one by one, to need the memory of one image only

            def report(part: float, number: int = number) -> None:
                show((number + part) / len(image), part)

            pixels = picture[..., :3].float().cpu().contiguous().numpy()
            try:
                rgb = restore(pixels, masks[number], report)
            except NotEnoughMemory as error:
                if restorer.device.type == "cpu":
                    raise
                logging.warning("maximir: %s; computing on the processor instead", error)
                restorer = ready(name, some_stages, precision, "cpu", height, width)
                rgb = restore(pixels, masks[number], report)
            report(1)
            restored[number, ..., :3] = torch.from_numpy(rgb).clamp(0, 1)
        if device.type != "cpu":
            model_management.soft_empty_cache()
        return io.NodeOutput(restored)


class MaximExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [MaximRestore]


async def comfy_entrypoint() -> ComfyExtension:
    try:
        spandrel.install()  # lets "Load Upscale Model" open maximir's files too
    except MaximirError as error:
        logging.warning("maximir: %s", error)
    return MaximExtension()
