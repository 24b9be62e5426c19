"""The shape of a MAXIM network, as data. Source: paper, table 6 and official `maxim.py`, `Model`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from maximir.errors import MaximirError

LEVELS = 3  # UNet depth, and also the number of supervised scales (full, 1/2, 1/4)
SIZE_MULTIPLE = 64  # 4 (two downsamplings) x the 16 of the grid, and 8 x 8 of the bottleneck
WINDOWS = (16, 16, 8)  # side of blocks and of grids at each level
BOTTLENECK_WINDOW = 8
IMAGE_CHANNELS = 3
UNSHUFFLES = (1, 2)
PaddingMode = Literal["zeros", "replicate"]
LARGEST = 512  # largest number in a config; a file that claims more is damaged


def padded_size(size: int, multiple: int = SIZE_MULTIPLE) -> int:
    """Return `size` rounded up to a multiple that a network takes."""
    return size + -size % multiple


@dataclass(frozen=True)
class MaximConfig:
    """Sizes of one network.

    Attributes:
        features: channels at full resolution, C; levels have C, 2C and 4C. A multiple of 4.
        stages: how many UNets follow each other, S.
        groups: pairs of (multi-axis gMLP, channel attention) in a block.
        bottlenecks: bottleneck blocks in a stage.
        reduction: squeeze factor of the channel attention.
        dropout: dropout rate after the projections of gMLP and gating blocks.
        padding_mode: what the convolutions see beyond the border: "zeros" as the official code, or
            "replicate", the outermost pixel again. Zeros are a dark frame, and the grids repeat its traces
            all over an even area (docs/experiments.md, 17).
        unshuffle: 2: the network sees 2 x 2 pixels as one position of 12 channels (not in the paper; FFDNet,
            section III-B): a quarter of the work. 1: pixels.
    """

    features: int = 32
    stages: int = 2
    groups: int = 2
    bottlenecks: int = 2
    reduction: int = 4
    dropout: float = 0.0
    padding_mode: PaddingMode = "zeros"
    unshuffle: int = 1

    def __post_init__(self) -> None:
        for name in ("features", "stages", "groups", "bottlenecks", "reduction"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
                raise MaximirError(f"config: {name} must be an integer from 1 to {LARGEST}, not {value!r}")
        if self.features % self.reduction:
            raise MaximirError(
                f"config: features ({self.features}) must be a multiple of reduction ({self.reduction})"
            )
        if not isinstance(self.dropout, float | int) or not 0 <= self.dropout < 1:
            raise MaximirError(f"config: dropout must be in [0, 1), not {self.dropout!r}")
        if self.padding_mode not in get_args(PaddingMode):
            raise MaximirError(
                f"config: padding_mode must be 'zeros' or 'replicate', not {self.padding_mode!r}"
            )
        if self.unshuffle not in UNSHUFFLES:
            raise MaximirError(f"config: unshuffle must be 1 or 2, not {self.unshuffle!r}")

    @property
    def size_multiple(self) -> int:
        """Heights and widths of images are multiples of this."""
        return SIZE_MULTIPLE * self.unshuffle

    @property
    def image_channels(self) -> int:
        """Channels that the convolutions from images take, and those to images make."""
        return IMAGE_CHANNELS * self.unshuffle**2

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of blocks and of grids at each level, of as many pixels with `unshuffle` as without."""
        return tuple(max(BOTTLENECK_WINDOW, window // self.unshuffle) for window in WINDOWS)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MaximConfig:
        """Return the config with these fields; an unknown one is an error that names it."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise MaximirError(f"config: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


VARIANTS = {
    "S-1": MaximConfig(features=32, stages=1),
    "S-2": MaximConfig(features=32, stages=2),
    "S-3": MaximConfig(features=32, stages=3),
    "M-1": MaximConfig(features=64, stages=1),
    "M-2": MaximConfig(features=64, stages=2),
    "M-3": MaximConfig(features=64, stages=3),
}
