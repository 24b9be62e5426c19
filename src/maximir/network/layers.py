"""The operators that MAXIM's blocks are made of (official `maxim/models/maxim.py`).

Shapes: N images, H x W positions, C channels. Feature maps are channels-last, `[N, H, W, C]`, so that
Dense and LayerNorm act on the last axis as in the paper, and a 1x1 convolution is a Dense.
"Tokens" are the P = s*s positions that a spatial Dense mixes: the s x s pixels of a block, or the
s x s pixels that lie H/s rows and W/s columns apart on a grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir.engine import operators
from maximir.engine.sources import Through, added, linear_added, up_convolve
from maximir.engine.streaming import Rows

WHOLE = Rows()
DENSE_STD = 0.02  # official `weight_initializer`
TRUNCATED_STD = 0.87962566103423978  # std of a unit normal truncated at +-2, as flax's lecun_normal


def normal_(weight: Tensor) -> None:
    """The official code's initialiser of its Dense layers.

    On the meta device there is nothing to fill in, and torch would import its compiler for it: seconds.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, std=DENSE_STD)


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """flax's default kernel initialiser: truncated normal of variance 1 / fan_in."""
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
        return operators.layer_norm(self, x)


class Dense(nn.Linear):
    """Dense of the gMLPs and MLPs: N(0, 0.02)."""

    def reset_parameters(self) -> None:
        normal_(self.weight)
        nn.init.zeros_(self.bias)


class Conv1x1(nn.Linear):
    """A 1x1 convolution (or a Dense that the official code left at flax's default): lecun normal."""

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, self.in_features)
        nn.init.zeros_(self.bias)


class Conv(nn.Conv2d):
    """A k x k convolution of rows of a channels-last map; padding as flax's 'SAME', 1 in all cases here.

    What pads the image (`MaximConfig.padding_mode`) does not pad a strip of it: the strip brings `halo` rows
    of its neighbours instead.
    """

    halo = 1

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        assert kernel - stride in (1, 2)
        super().__init__(inputs, outputs, kernel, stride, padding=self.halo)

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, self.weight[0].numel())
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, rows: Rows = WHOLE, *, negative_slope: float | None = None, last: bool = False
    ) -> Tensor:
        """Rows of the convolution.

        Args:
            negative_slope: of a leaky ReLU that follows; None: none does.
            last: it is what a sweep makes, so it may be written where it belongs.
        """
        y = operators.convolution(self, x, rows, negative_slope, last)
        if y is None:
            y = self.convolve(x, self.halo * rows.at_top, self.halo * rows.at_bottom)
            y = y if negative_slope is None else F.leaky_relu(y, negative_slope)
        return y

    def convolve(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """In torch, with this much padding above and below."""
        if self.padding_mode == "replicate":
            planes = F.pad(x.permute(0, 3, 1, 2), (self.halo, self.halo, top, bottom), mode="replicate")
            return F.conv2d(planes, self.weight, self.bias, self.stride).permute(0, 2, 3, 1)
        if top != bottom:
            x = F.pad(x, (0, 0, 0, 0, top, bottom))
        padding = (top if top == bottom else 0, self.halo)
        y = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, self.stride, padding)
        return y.permute(0, 2, 3, 1)


class ImageConv(Conv):
    """A 3x3 convolution from or to an image: in float32 at all times.

    Rounding the image to bfloat16 would be most of what bfloat16 costs: 6 dB, docs/performance.md.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)

    def forward(
        self, x: Tensor, rows: Rows = WHOLE, *, negative_slope: float | None = None, last: bool = False
    ) -> Tensor:
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            return super().forward(x, rows, negative_slope=negative_slope, last=last)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            return super().forward(x, rows, negative_slope=negative_slope, last=last)


class ConvTranspose(nn.ConvTranspose2d):
    """The 2x2 stride-2 up-convolution of channels-last maps.

    Torch's kernel is the flax one flipped in both spatial axes: `official` does that on import.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=2, stride=2)

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, 4 * self.in_channels)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return up_convolve(x, self.weight, self.bias)


class SpatialDense(nn.Linear):
    """A Dense over tokens: every channel and every block (or grid) is mixed by the same P x P matrix."""

    def __init__(self, size: int, *, bias_init: float) -> None:
        self.bias_init = bias_init
        super().__init__(size * size, size * size)

    def reset_parameters(self) -> None:
        normal_(self.weight)
        nn.init.constant_(self.bias, self.bias_init)

    def forward(self, tokens: Tensor) -> Tensor:  # [P, M, C]
        return torch.addmm(self.bias[:, None], self.weight, tokens.flatten(1)).view_as(tokens)


class ScaleTo(nn.Module):
    """Resize bilinearly by `ratio` (1/4 … 4) and project. Official `UpSampleRatio`, which resizes first.

    Both are linear and the resize's weights sum to one, so they commute: each is done at the smaller size.
    """

    def __init__(self, inputs: int, outputs: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.project = Conv1x1(inputs, outputs)

    def through(self, x: Tensor, weight: Tensor) -> Through:
        """The result times `weight`, from the whole map `x`; both projections in one product."""
        bias = weight @ self.project.bias
        weight = weight @ self.project.weight
        if self.ratio == 1:
            return Through(lambda rows, total: linear_added(rows, total, rows.of(x), weight), bias)
        # One row of the smaller map is as far as a resize reaches: 2 taps up, 2 / ratio taps down.
        halo = 1 if self.ratio > 1 else round(1 / self.ratio)

        def term(rows: Rows, total: Tensor) -> Tensor:
            strip = rows.of(x, halo)
            if self.ratio > 1:
                resized = self.resize(F.linear(strip, weight))
                return added(rows, total, rows.trim(resized, round(halo * self.ratio)))
            resized = rows.trim(self.resize(strip), round(halo * self.ratio))
            return linear_added(rows, total, resized, weight)

        return Through(term, bias)

    def resize(self, x: Tensor) -> Tensor:
        return enlarge(x, round(self.ratio)) if self.ratio > 1 else shrink(x, round(1 / self.ratio))


def subsample(image: Tensor, step: int) -> Tensor:
    """[..., H, W] → [..., H/step, W/step]: official `nearest`, with half-pixel centres."""
    return image[..., step // 2 :: step, step // 2 :: step]


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Bilinear, half-pixel centres."""
    size = [factor * side for side in x.shape[1:3]]
    planes = F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1)


def shrink(x: Tensor, factor: int) -> Tensor:
    """Bilinear with antialiasing, as `jax.image.resize`: a triangle as wide as two of the larger pixels.

    At the border the part of the triangle that lies outside, 1/8 of it, is left out. A convolution of each
    channel: torch's own antialiasing is many times slower, and can't in bfloat16.
    """
    c = x.shape[-1]
    taps = 1 - (torch.arange(2 * factor, device=x.device, dtype=x.dtype) + 0.5 - factor).abs() / factor
    kernel = (torch.outer(taps, taps) / factor**2).expand(c, 1, -1, -1)
    planes = F.conv2d(x.permute(0, 3, 1, 2), kernel, stride=factor, padding=factor // 2, groups=c)
    rows, columns = (
        F.pad(torch.ones(size - 2, device=x.device, dtype=planes.dtype), (1, 1), value=8 / 7)
        for size in planes.shape[2:]
    )
    return planes.permute(0, 2, 3, 1) * (rows[:, None] * columns)[..., None]
