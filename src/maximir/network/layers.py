"""The layers that MAXIM's blocks are made of (official `maxim/models/maxim.py`).

Shapes: N images, H x W positions, C channels. Feature maps are channels-last, `[N, H, W, C]`, so that
Dense and LayerNorm act on the last axis as in the paper, and a 1 x 1 convolution is a Dense.
"Tokens" are the P = s*s positions that a spatial Dense mixes, of M windows: `[P, M, C]`. A window is a block
of s x s neighbours, or the s x s pixels of a grid that lie H/s rows and W/s columns apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from maximir.ops import functional as ops

Axis = Literal["block", "grid"]

DENSE_STD = 0.02  # official `weight_initializer`
TRUNCATED_STD = 0.87962566103423978  # std of a unit normal truncated at +-2, as flax's lecun_normal


def normal_(weight: Tensor) -> None:
    """Initialise a Dense as the official code does.

    Skip the meta device: there is nothing to fill in, and torch would import its compiler for it.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, std=DENSE_STD)


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """Initialise as flax does by default: truncated normal of variance 1 / fan_in."""
    std = fan_in**-0.5 / TRUNCATED_STD
    if not weight.is_meta:
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


M = TypeVar("M", bound=nn.Module)


class Modules(nn.ModuleList, Generic[M]):
    """A list of modules of one class."""

    def __init__(self, modules: Iterable[M]) -> None:
        super().__init__(modules)

    def __iter__(self) -> Iterator[M]:
        return super().__iter__()  # type: ignore[return-value]

    def __getitem__(self, index: int) -> M:  # type: ignore[override]
        return super().__getitem__(index)  # type: ignore[return-value]


class LayerNorm(nn.LayerNorm):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class Dense(nn.Linear):
    """Dense of the gMLPs and MLPs: N(0, 0.02)."""

    def reset_parameters(self) -> None:
        normal_(self.weight)
        nn.init.zeros_(self.bias)


class Conv1x1(nn.Linear):
    """A 1 x 1 convolution (or a Dense that the official code left at flax's default): lecun normal."""

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, self.in_features)
        nn.init.zeros_(self.bias)


class Conv(nn.Conv2d):
    """A k x k convolution of a channels-last map; padding as flax's 'SAME', 1 in all cases here.

    `MaximConfig.padding_mode` decides what pads the image.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        assert kernel - stride in (1, 2)
        super().__init__(inputs, outputs, kernel, stride, padding=1)

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, self.weight[0].numel())
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.convolve(self, x)


class ImageConv(Conv):
    """A 3 x 3 convolution from or to an image: in float32 at all times, under autocast too.

    Rounding the image to bfloat16 would be most of what bfloat16 costs: 6 dB, docs/evidence/performance.md.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        with exactly(x):
            return super().forward(x.to(self.weight.dtype))


def exactly(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Switch autocast off for what is computed from `x`."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


class ConvTranspose(nn.ConvTranspose2d):
    """The 2 x 2 stride-2 up-convolution of channels-last maps.

    Torch's kernel is the flax one flipped in both spatial axes: `official` does that on import.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=2, stride=2)

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, 4 * self.in_channels)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SpatialDense(nn.Linear):
    """A Dense over tokens: every channel and every window is mixed by the same P x P matrix."""

    def __init__(self, size: int, *, bias_init: float) -> None:
        self.bias_init = bias_init
        super().__init__(size * size, size * size)

    def reset_parameters(self) -> None:
        normal_(self.weight)
        nn.init.constant_(self.bias, self.bias_init)

    def forward(self, tokens: Tensor) -> Tensor:  # [P, M, C]
        return torch.addmm(self.bias[:, None], self.weight, tokens.flatten(1)).view_as(tokens)


class ScaleTo(nn.Module):
    """Resize bilinearly by `ratio` (1/4 … 4) and project. Official `UpSampleRatio`.

    The official code resizes first. Both are linear and the resize's weights sum to one, so they commute:
    the projection is done at the smaller size.
    """

    def __init__(self, inputs: int, outputs: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.project = Conv1x1(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.ratio > 1:
            return self.resize(self.project(x))
        return self.project(self.resize(x))

    def resize(self, x: Tensor) -> Tensor:
        if self.ratio > 1:
            return ops.enlarge(x, round(self.ratio))
        return x if self.ratio == 1 else ops.shrink(x, round(1 / self.ratio))


def subsample(image: Tensor, step: int) -> Tensor:
    """[..., H, W] → [..., H/step, W/step]: official `nearest`, with half-pixel centres."""
    return image[..., step // 2 :: step, step // 2 :: step]


def windows(x: Tensor, size: int, axis: Axis) -> Tensor:
    """View [N, H, W, C] as [s, s, N, A, B, C]: position in the window first, then its number."""
    n, h, w, c = x.shape
    if axis == "block":
        return x.view(n, h // size, size, w // size, size, c).permute(2, 4, 0, 1, 3, 5)
    return x.view(n, size, h // size, size, w // size, c).permute(1, 3, 0, 2, 4, 5)


def from_windows(tokens: Tensor, shape: Sequence[int], size: int, axis: Axis) -> Tensor:
    """Tokens [P, M, C] of all windows of an image of `shape` [N, H, W, ...] → that image."""
    n, h, w = shape[:3]
    c = tokens.shape[-1]
    x = tokens.reshape(size, size, n, h // size, w // size, c)
    x = x.permute(2, 3, 0, 4, 1, 5) if axis == "block" else x.permute(2, 0, 3, 1, 4, 5)
    return x.reshape(n, h, w, c)


def mix_windows(function: Callable[[Tensor], Tensor], x: Tensor, size: int, axis: Axis) -> Tensor:
    """Apply a function of tokens [P, M, C] to a map [N, H, W, C]."""
    n, h, w, c = x.shape
    count = n * (h // size) * (w // size)
    tokens = windows(x, size, axis).reshape(size * size, count, c)
    return from_windows(function(tokens), x.shape, size, axis)
