"""The part of ComfyUI that `hosts/comfyui` uses, in few lines. It fails as ComfyUI does.

Names, signatures and behaviour after Comfy-Org/ComfyUI 0.3.64, tried there in November 2026: comfy_api/latest
(`__init__.py`, `_io.py`), comfy/utils.py, comfy/model_management.py, comfy/model_patcher.py, and nodes.py:
arguments of `Schema` and of inputs by name, `execute` a classmethod that is called with the inputs' ids.

- The loader calls `comfy_entrypoint` and `get_node_list`, never `on_load`.
- A value of a Combo reaches `execute` unchecked.
- `ComfyAPISync()` has no `execution`; progress is `comfy.utils.ProgressBar`.
- An interruption is raised once.
"""

import asyncio
import types
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch


class Input:
    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, **options):
        unknown = set(options) - self.OPTIONS
        assert not unknown, f"{type(self).__name__}: no argument {unknown}"
        self.id, self.optional, self.options = id, optional, options


class Output:
    def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False):
        self.id, self.display_name = id, display_name


def io_type(name, options):
    return type(
        name,
        (),
        {"Input": type("Input", (Input,), {"OPTIONS": options}), "Output": type("Output", (Output,), {})},
    )


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    hidden: list = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False

    def __post_init__(self):
        ids = [each.id for each in self.inputs]
        assert len(set(ids)) == len(ids), "ids must be unique"


class ComfyNode(ABC):
    @classmethod
    @abstractmethod
    def define_schema(cls): ...

    @classmethod
    @abstractmethod
    def execute(cls, **inputs): ...


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args = args

    @property
    def result(self):
        return self.args or None


class ComfyExtension(ABC):
    async def on_load(self):
        raise AssertionError("ComfyUI never calls it")

    @abstractmethod
    async def get_node_list(self): ...


class InterruptProcessingException(Exception):
    pass


class ComfyAPISyncStub:
    """Has no attributes: `execution` is annotated with a string, which ComfyUI's converter skips."""


class ModelPatcher:
    def __init__(self, model, load_device, offload_device):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device


class Host:
    """The modules by name, what the node reported, and what the user did."""

    def __init__(self):
        self.progress, self.device, self.checks, self.interrupt_at = [], "cpu", 0, None
        self.previews, self.loaded = [], []
        io = types.ModuleType("comfy_api.latest.io")
        io.Image = io_type("Image", {"advanced"})
        io.Combo = io_type("Combo", {"options", "default", "control_after_generate", "upload", "advanced"})
        io.Int = io_type("Int", {"default", "min", "max", "step", "display_mode", "advanced"})
        io.Float = io_type("Float", {"default", "min", "max", "step", "round", "display_mode"})
        io.Mask = io_type("Mask", set())
        io.Schema, io.ComfyNode, io.NodeOutput = Schema, ComfyNode, NodeOutput
        latest = types.ModuleType("comfy_api.latest")
        latest.io, latest.ComfyExtension, latest.ComfyAPISync = io, ComfyExtension, ComfyAPISyncStub
        management = types.ModuleType("comfy.model_management")
        management.throw_exception_if_processing_interrupted = self.throw_if_interrupted
        management.get_torch_device = lambda: torch.device(self.device)
        management.unet_offload_device = lambda: torch.device("cpu")
        management.soft_empty_cache = lambda force=False: None
        management.load_models_gpu = self.load_models_gpu
        patching = types.ModuleType("comfy.model_patcher")
        patching.ModelPatcher = ModelPatcher
        utils = types.ModuleType("comfy.utils")
        utils.ProgressBar = self.progress_bar
        comfy = types.ModuleType("comfy")
        comfy.model_management, comfy.utils, comfy.model_patcher = management, utils, patching
        api = types.ModuleType("comfy_api")
        api.latest = latest
        self.modules = {
            "comfy": comfy,
            "comfy.model_management": management,
            "comfy.model_patcher": patching,
            "comfy.utils": utils,
            "comfy_api": api,
            "comfy_api.latest": latest,
        }

    def load(self, module):
        """Return the nodes of a custom node's module."""
        extension = asyncio.run(module.comfy_entrypoint())
        assert isinstance(extension, ComfyExtension)
        return asyncio.run(extension.get_node_list())

    def progress_bar(self, total, node_id=None):
        def update_absolute(value, total=total, preview=None):
            self.progress.append((value, total))
            if preview is not None:
                self.previews.append(preview)

        return types.SimpleNamespace(update_absolute=update_absolute)

    def load_models_gpu(self, models, memory_required=0, force_full_load=False):
        self.loaded += [(patcher.model, memory_required) for patcher in models]

    def throw_if_interrupted(self):
        """Raise at the check with the number `interrupt_at`, from 1."""
        self.checks += 1
        if self.checks == self.interrupt_at:
            raise InterruptProcessingException
