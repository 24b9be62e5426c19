"""A node for ComfyUI that restores photographs with MAXIM. Requires maximir in ComfyUI's Python."""

from __future__ import annotations

import functools
import logging

import comfy.model_management
import torch
from comfy_api.latest import ComfyAPISync, ComfyExtension, io

from maximir import MaximirError, Restorer
from maximir.hosts import spandrel
from maximir.models.catalogue import TASKS
from maximir.models.choice import available
from maximir.restoring.restorer import DEVICES

ALL_STAGES = 0
PRECISIONS = ["fp32", "bf16"]


@functools.lru_cache(maxsize=1)  # ComfyUI runs a node many times, mostly with the same model
def restorer_of(model: str, stages: int, precision: str, device: str) -> Restorer:
    return Restorer(model, device, precision, stages=None if stages == ALL_STAGES else stages)


def device_of_host() -> str:
    """Return the device that ComfyUI was started with; the processor in place of one maximir lacks."""
    device = comfy.model_management.get_torch_device()
    return str(device) if device.type in DEVICES else "cpu"


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
                    options=list(dict.fromkeys([*TASKS, *sorted(available())])),
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
        """Restore [B, H, W, C] in [0, 1]; channels after RGB (alpha) stay unchanged."""
        restorer = restorer_of(model, stages, precision, device_of_host())
        progress = ComfyAPISync().execution
        restored = image.clone()
        for number, picture in enumerate(image):  # one by one, to need the memory of one image only

            def report(part: float, number: int = number) -> None:
                comfy.model_management.throw_exception_if_processing_interrupted()
                progress.set_progress(value=number + part, max_value=len(image))

            report(0)  # small pictures report nothing else
            rgb = restorer(picture[..., :3].float().cpu().contiguous().numpy(), progress=report)
            report(1)
            restored[number, ..., :3] = torch.from_numpy(rgb).clamp(0, 1)
        return io.NodeOutput(restored)


class MaximExtension(ComfyExtension):
    async def on_load(self) -> None:
        try:
            spandrel.install()  # lets "Load Upscale Model" open maximir's files too
        except MaximirError as error:
            logging.warning("maximir: %s", error)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [MaximRestore]


async def comfy_entrypoint() -> ComfyExtension:
    return MaximExtension()
