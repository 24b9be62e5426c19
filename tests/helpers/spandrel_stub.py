"""What `maximir.hosts.spandrel` uses of spandrel, in few lines: spandrel itself needs torchvision.

Behaviour and signatures after chaiNNer-org/spandrel, libs/spandrel/spandrel/__helpers (model_descriptor.py,
registry.py, size_req.py), read in November 2026: arguments by name, the order of detection, weights loaded
strictly by the descriptor, padding by reflection at the right and below, results clamped and cropped.
"""

import enum
import sys
import types
from dataclasses import dataclass

import torch
import torch.nn.functional as F


class UnsupportedModelError(Exception):
    pass


class UnsupportedDtypeError(Exception):
    pass


class DuplicateArchitectureError(ValueError):
    pass


class ModelTiling(enum.Enum):
    SUPPORTED = 1
    DISCOURAGED = 2
    INTERNAL = 3


@dataclass(frozen=True)
class SizeRequirements:
    minimum: int = 0
    multiple_of: int = 1
    square: bool = False


class Architecture:
    def __init__(self, *, id, detect, name=None):
        self.id, self.detect, self.name = id, detect, name or id


class ImageModelDescriptor:
    def __init__(
        self, model, state_dict, architecture, purpose, tags, supports_half, supports_bfloat16, scale,
        input_channels, output_channels, size_requirements=None, tiling=ModelTiling.SUPPORTED, call_fn=None,
    ):  # fmt: skip
        assert purpose != "Restoration" or scale == 1
        self.model, self.architecture, self.purpose, self.tags = model, architecture, purpose, tags
        self.supports_half, self.supports_bfloat16, self.scale = supports_half, supports_bfloat16, scale
        self.input_channels, self.output_channels = input_channels, output_channels
        self.size_requirements = size_requirements or SizeRequirements()
        self.tiling, self.call_fn = tiling, call_fn or (lambda model, image: model(image))
        model.load_state_dict(state_dict)

    def to(self, dtype):
        if dtype == torch.float16 and not self.supports_half:
            raise UnsupportedDtypeError
        if dtype == torch.bfloat16 and not self.supports_bfloat16:
            raise UnsupportedDtypeError
        self.model.to(dtype)
        return self

    @torch.inference_mode()
    def __call__(self, image):
        h, w = image.shape[2:]
        multiple = self.size_requirements.multiple_of
        image = F.pad(image, (0, -w % multiple, 0, -h % multiple), "reflect")
        self.model.eval()
        output = self.call_fn(self.model, image)
        assert isinstance(output, torch.Tensor)
        return output.clamp_(0, 1)[..., :h, :w]


@dataclass(frozen=True)
class ArchSupport:
    architecture: Architecture
    detect: object
    before: tuple = ()

    @staticmethod
    def from_architecture(arch, before=()):
        return ArchSupport(arch, arch.detect, before)


class ArchRegistry:
    def __init__(self):
        self.supports = {}

    def __contains__(self, id):
        return id in self.supports

    def add(self, *supports):
        for support in supports:
            if support.architecture.id in self.supports:
                raise DuplicateArchitectureError(support.architecture.id)
            self.supports[support.architecture.id] = support

    def load(self, state_dict):
        for support in self.supports.values():
            if support.detect(state_dict):
                return support.architecture.load(state_dict)
        raise UnsupportedModelError


def module():
    """A module as `spandrel`, with an empty registry."""
    stub = types.ModuleType("spandrel")
    names = (
        "UnsupportedModelError UnsupportedDtypeError DuplicateArchitectureError ModelTiling SizeRequirements "
        "Architecture ImageModelDescriptor ArchSupport ArchRegistry"
    )
    for name in names.split():
        setattr(stub, name, getattr(sys.modules[__name__], name))
    stub.MAIN_REGISTRY = ArchRegistry()
    return stub
