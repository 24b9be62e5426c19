"""Support for spandrel, the loader of ComfyUI, chaiNNer and others: call `install()`."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maximir.errors import UsageError
from maximir.models.checkpoint import REPLICATES
from maximir.models.int8 import unpack
from maximir.network.config import IMAGE_CHANNELS, MaximConfig
from maximir.network.model import Maxim

ID = "MAXIM"
FIRST_CONV = "stages.0.input_convs.0.weight"  # [C, 3, 3, 3], or 12 channels of the image
SQUEEZE = "stages.0.encoders.0.block.groups.0.1.attention.squeeze.weight"  # [C / reduction, C]
TELLING = (FIRST_CONV, SQUEEZE, "stages.0.encoders.0.block.groups.0.0.grid.mix.weight")


class DescribedMaxim(Maxim):
    """The network with the attribute by which spandrel's tests compare configs."""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)


def install() -> None:
    """Make spandrel load maximir's `.safetensors`. A second call does nothing.

    Raises:
        UsageError: spandrel is missing or cannot be imported (it needs torchvision).
    """
    try:
        import spandrel
    except ImportError as error:
        raise UsageError(f"spandrel cannot be used ({error}): pip install spandrel torchvision") from error
    if ID not in spandrel.MAIN_REGISTRY:
        spandrel.MAIN_REGISTRY.add(spandrel.ArchSupport.from_architecture(architecture()))


def recognises(state: Mapping[str, Any]) -> bool:
    """Return True for the tensors of a network of ours."""
    return all(name in state for name in TELLING)


def config_of(state: Mapping[str, Any]) -> MaximConfig:
    """Derive the config of a network from the names and shapes of its tensors.

    Raises:
        MaximirError: the config is invalid.
    """
    features = state[FIRST_CONV].shape[0]
    return MaximConfig(
        features=features,
        stages=count(state, r"stages\.(\d+)\."),
        groups=count(state, r"stages\.0\.encoders\.0\.block\.groups\.(\d+)\."),
        bottlenecks=count(state, r"stages\.0\.bottlenecks\.(\d+)\."),
        reduction=features // max(1, state[SQUEEZE].shape[0]),
        padding_mode="replicate" if REPLICATES in state else "zeros",
        unshuffle=math.isqrt(state[FIRST_CONV].shape[1] // IMAGE_CHANNELS),
    )


def count(state: Mapping[str, Any], pattern: str) -> int:
    """Count the different numbers that the pattern finds in the names."""
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


def restore(model: Maxim, image: Tensor) -> Tensor:
    """Restore [N, 3, H, W] → [N, 3, H, W] with the last stage at full size."""
    restored: Tensor = model(image)[-1][-1]
    return restored


def architecture() -> Any:
    """Return the class for spandrel's registry, defined here because spandrel may be missing."""
    import spandrel

    class MaximArchitecture(spandrel.Architecture):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(id=ID, detect=recognises)

        def load(self, state_dict: dict[str, Any]) -> Any:
            config = config_of(state_dict)
            state_dict = unpack(state_dict)
            state_dict.pop(REPLICATES, None)
            return spandrel.ImageModelDescriptor(
                DescribedMaxim(config),
                state_dict,
                architecture=self,
                purpose="Restoration",
                tags=[f"{config.features}nf", f"{config.stages} stages"],
                supports_half=False,  # verified for one model only (docs/hosts)
                supports_bfloat16=True,
                scale=1,
                input_channels=3,
                output_channels=3,
                size_requirements=spandrel.SizeRequirements(multiple_of=config.size_multiple),
                tiling=spandrel.ModelTiling.DISCOURAGED,  # each tile would estimate its own light
                call_fn=restore,
            )

    return MaximArchitecture()
