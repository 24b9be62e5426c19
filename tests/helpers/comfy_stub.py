"""What `hosts/comfyui` uses of ComfyUI, in few lines.

Names, signatures and behaviour after comfyanonymous/ComfyUI: comfy_api/latest (`__init__.py`, `_io.py`) and
comfy/model_management.py, and docs.comfy.org/custom-nodes/v3_migration, read in November 2026: arguments of
`Schema` and of inputs by name, `execute` a classmethod that is called with the inputs' ids, `set_progress`
through `ComfyAPISync().execution`, an interruption that is told once.
"""

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
        return None

    @abstractmethod
    async def get_node_list(self): ...


class InterruptProcessingException(Exception):
    pass


class Host:
    """The modules by name, and what the node told and was told."""

    def __init__(self):
        self.progress, self.interrupted, self.device = [], False, torch.device("cpu")
        execution = types.SimpleNamespace(set_progress=self.set_progress)
        io = types.ModuleType("comfy_api.latest.io")
        io.Image = io_type("Image", {"advanced"})
        io.Combo = io_type("Combo", {"options", "default", "control_after_generate", "upload", "advanced"})
        io.Int = io_type("Int", {"default", "min", "max", "step", "display_mode", "advanced"})
        io.Schema, io.ComfyNode, io.NodeOutput = Schema, ComfyNode, NodeOutput
        latest = types.ModuleType("comfy_api.latest")
        latest.io, latest.ComfyExtension = io, ComfyExtension
        latest.ComfyAPISync = lambda: types.SimpleNamespace(execution=execution)
        management = types.ModuleType("comfy.model_management")
        management.throw_exception_if_processing_interrupted = self.throw_if_interrupted
        management.get_torch_device = lambda: self.device
        comfy = types.ModuleType("comfy")
        comfy.model_management = management
        api = types.ModuleType("comfy_api")
        api.latest = latest
        self.modules = {
            "comfy": comfy,
            "comfy.model_management": management,
            "comfy_api": api,
            "comfy_api.latest": latest,
        }

    def set_progress(self, value, max_value, node_id=None, preview_image=None, ignore_size_limit=False):
        self.progress.append((value, max_value))

    def throw_if_interrupted(self):
        if self.interrupted:
            self.interrupted = False
            raise InterruptProcessingException
