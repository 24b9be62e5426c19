"""A node for ComfyUI that restores photographs with MAXIM. Requires maximir in ComfyUI's Python."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import torch
from comfy import model_management
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io

from maximir import MaximirError, Restorer, UsageError
from maximir.hosts import spandrel
from maximir.models import choice
from maximir.models.catalogue import TASKS
from maximir.restoring.restorer import DEVICES

if TYPE_CHECKING:
    from maximir.engine.sweeps import Streaming

ALL_STAGES = 0
PRECISIONS = ["fp32", "bf16"]


class InterruptibleRestorer(Restorer):
    """Ends at the next strip after the user's *Cancel*, also where an image is too small for progress."""

    def _streaming(self, *arguments: Any) -> Streaming:
        streaming = super()._streaming(*arguments)
        report = streaming.strip_done

        def strip_done(strips: int) -> None:
            model_management.throw_exception_if_processing_interrupted()
            report(strips)

        streaming.strip_done = strip_done
        return streaming


class Percentage:
    """ComfyUI's progress bar, called with the part that is done; shows each percent once."""

    def __init__(self) -> None:
        self.bar, self.shown = ProgressBar(100), -1

    def __call__(self, part: float) -> None:
        percent = int(100 * part)
        if percent > self.shown:
            self.shown = percent
            self.bar.update_absolute(percent)


@functools.lru_cache(maxsize=1)  # ComfyUI runs a node many times, mostly with the same model
def restorer_of(model: str, device: str, stages: int | None, precision: str) -> Restorer:
    return InterruptibleRestorer(model, device, precision, stages=stages)


def offered() -> list[str]:
    """Return the models to choose from: tasks, then the models on this machine."""
    return list(dict.fromkeys([*TASKS, *sorted(choice.available())]))


def choose_restorer(model: str, stages: int, precision: str) -> Restorer:
    """Return the restorer for the node's inputs, on ComfyUI's device.

    Raises:
        UsageError: the model is not offered. ComfyUI does not check, and whoever reaches its port could
            otherwise name any file, or an address that this machine would ask.
    """
    if model not in offered():
        raise UsageError(f"the model {model!r} is not offered: choose one from the node's list")
    card = choice.choose(model)
    stages = min(max(stages, ALL_STAGES), card.header.stages or stages)
    device = model_management.get_torch_device()
    return restorer_of(card.name, str(device) if device.type in DEVICES else "cpu", stages or None, precision)


def check_batch(image: torch.Tensor) -> None:
    """Raise UsageError unless the batch is [B, H, W, C] with a picture in it, grey or in colour."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or image.numel() == 0:
        raise UsageError(
            f"the image is {list(image.shape)}: give [B, H, W, C] with at least one picture and C = 1, 3 or 4"
        )


class MaximRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaximRestore",
            display_name="Restore (MAXIM)",
            category="image/restoration",
            description="Denoise, deblur, derain, dehaze, enhance or retouch photographs of any size.",
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
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, model: str, stages: int, precision: str) -> io.NodeOutput:
        """Restore [B, H, W, C] in [0, 1]; alpha stays unchanged, and grey becomes three channels."""
        restorer = choose_restorer(model, stages, precision)
        check_batch(image)
        if image.shape[-1] == 1:
            image = image.expand(-1, -1, -1, 3)
        restored = image.clone()
        show = Percentage()
        for number, picture in enumerate(image):  # one by one, to need the memory of one image only

            def report(part: float, number: int = number) -> None:
                show((number + part) / len(image))

            model_management.throw_exception_if_processing_interrupted()
            report(0)  # small pictures report nothing else
            rgb = restorer(picture[..., :3].float().cpu().contiguous().numpy(), progress=report)
            report(1)
            restored[number, ..., :3] = torch.from_numpy(rgb).clamp(0, 1)
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
