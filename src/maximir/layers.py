"""The building blocks of MAXIM (paper, figures 2 and 3; official `maxim/models/maxim.py`).

Shapes: N images, H x W positions, C channels. Feature maps are channels-last, `[N, H, W, C]`, so that
Dense and LayerNorm act on the last axis as in the paper, and a 1x1 convolution is a Dense.
"Tokens" are the P = s*s positions that a spatial Dense mixes: the s x s pixels of a block, or the
s x s pixels that lie H/s rows and W/s columns apart on a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Axis = Literal["block", "grid"]

DENSE_STD = 0.02  # official `weight_initializer`
TRUNCATED_STD = 0.87962566103423978  # std of a unit normal truncated at +-2, as flax's lecun_normal


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, flax's default."""
    return F.gelu(x, approximate="tanh")


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """flax's default kernel initialiser: truncated normal of variance 1 / fan_in."""
    std = fan_in**-0.5 / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def tokens_first(x: Tensor, size: int, axis: Axis) -> Tensor:
    """[N, H, W, C] -> [P, M, C]: position in the block (or grid) first, everything it is equal for next."""
    n, h, w, c = x.shape
    if axis == "block":
        x = x.reshape(n, h // size, size, w // size, size, c).permute(2, 4, 0, 1, 3, 5)
    else:
        x = x.reshape(n, size, h // size, size, w // size, c).permute(1, 3, 0, 2, 4, 5)
    return x.reshape(size * size, -1, c)


def image_first(tokens: Tensor, shape: Sequence[int], size: int, axis: Axis) -> Tensor:
    """The inverse of `tokens_first`, for an image of `shape` [N, H, W, ...]."""
    n, h, w = shape[:3]
    c = tokens.shape[-1]
    x = tokens.reshape(size, size, n, h // size, w // size, c)
    x = x.permute(2, 3, 0, 4, 1, 5) if axis == "block" else x.permute(2, 0, 3, 1, 4, 5)
    return x.reshape(n, h, w, c)


class LayerNorm(nn.LayerNorm):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)


class Dense(nn.Linear):
    """Dense of the gMLPs and MLPs: N(0, 0.02)."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=DENSE_STD)
        nn.init.zeros_(self.bias)


class Conv1x1(nn.Linear):
    """A 1x1 convolution (or a Dense that the official code left at flax's default): lecun normal."""

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, self.in_features)
        nn.init.zeros_(self.bias)


class Conv(nn.Conv2d):
    """A k x k convolution of channels-last maps; padding as flax's 'SAME'."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - stride + 1) // 2)

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, self.weight[0].numel())
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


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
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SpatialDense(nn.Linear):
    """A Dense over tokens: every channel and every block (or grid) is mixed by the same P x P matrix."""

    def __init__(self, size: int, *, bias_init: float) -> None:
        self.bias_init = bias_init
        super().__init__(size * size, size * size)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=DENSE_STD)
        nn.init.constant_(self.bias, self.bias_init)

    def forward(self, tokens: Tensor) -> Tensor:  # [P, M, C]
        return torch.addmm(self.bias[:, None], self.weight, tokens.flatten(1)).view_as(tokens)


class GatedMlp(nn.Module):
    """gMLP along one axis: x + out(u * (mix(LN(v)) + 1)), u, v = split(gelu(in(LN(x)))).

    Official `GridGmlpLayer` and `BlockGmlpLayer` with their gating units, which differ in the axis only.
    """

    def __init__(self, channels: int, size: int, axis: Axis, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.axis: Axis = axis
        self.norm = LayerNorm(channels)
        self.project_in = Dense(channels, 2 * channels)
        self.gate_norm = LayerNorm(channels)
        self.mix = SpatialDense(size, bias_init=0.0)
        self.project_out = Dense(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        tokens = tokens_first(x, self.size, self.axis)
        u, v = gelu(self.project_in(self.norm(tokens))).chunk(2, dim=-1)
        gated = u * (self.mix(self.gate_norm(v)) + 1)
        tokens = tokens + self.dropout(self.project_out(gated))
        return image_first(tokens, x.shape, self.size, self.axis)


class MultiAxisGatedMlp(nn.Module):
    """The multi-axis gated MLP block (MAB): half of the channels mix on the grid, half in blocks."""

    def __init__(self, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.project_in = Dense(channels, 2 * channels)
        self.grid = GatedMlp(channels, size, "grid", dropout)
        self.block = GatedMlp(channels, size, "block", dropout)
        self.project_out = Dense(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        u, v = gelu(self.project_in(self.norm(x))).chunk(2, dim=-1)
        mixed = torch.cat([self.grid(u), self.block(v)], dim=-1)
        return x + self.dropout(self.project_out(mixed))


class ChannelAttention(nn.Module):
    """Squeeze and excitation: the global mean decides each channel's weight. Official `CALayer`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = Conv1x1(channels, channels // reduction)
        self.excite = Conv1x1(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2), keepdim=True)
        return x * self.excite(F.relu(self.squeeze(mean))).sigmoid()


class ConvChannelAttention(nn.Module):
    """Residual channel attention block with convolutions, of encoders and decoders. Official `RCAB`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = Conv(channels, channels, 3)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.conv1(self.norm(x)), 0.2)
        return x + self.attention(self.conv2(y))


class DenseChannelAttention(nn.Module):
    """Residual channel attention block with an MLP, of the bottleneck. Official `RDCAB`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.dense1 = Dense(channels, channels)
        self.dense2 = Dense(channels, channels)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        y = gelu(self.dense1(self.norm(x)))
        return x + self.attention(self.dense2(y))


class SpatialGate(nn.Module):
    """Gating weights G(.) that one feature map gives another. Official `GetSpatialGatingWeights`."""

    def __init__(self, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.norm = LayerNorm(channels)
        self.project_in = Conv1x1(channels, 2 * channels)
        self.grid = SpatialDense(size, bias_init=1.0)
        self.block = SpatialDense(size, bias_init=1.0)
        self.project_out = Conv1x1(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        u, v = gelu(self.project_in(self.norm(x))).chunk(2, dim=-1)
        u = image_first(self.grid(tokens_first(u, self.size, "grid")), x.shape, self.size, "grid")
        v = image_first(self.block(tokens_first(v, self.size, "block")), x.shape, self.size, "block")
        return self.dropout(self.project_out(torch.cat([u, v], dim=-1)))


class CrossGating(nn.Module):
    """Cross-gating block: X and Y weight each other; Y' joins X'. Official `CrossGatingBlock`.

    Args:
        inputs_x: channels of X (`channels` or a concatenation).
        upsample_from: channels of a Y of half the size, brought up first; None: Y has X's size.
    """

    def __init__(
        self, inputs_x: int, channels: int, size: int, dropout: float, upsample_from: int | None = None
    ) -> None:
        super().__init__()
        self.upsample_y = nn.Identity() if upsample_from is None else ConvTranspose(upsample_from, channels)
        self.input_x = Conv1x1(inputs_x, channels)
        self.input_y = Conv1x1(channels, channels)
        self.norm_x = LayerNorm(channels)
        self.norm_y = LayerNorm(channels)
        self.project_in_x = Conv1x1(channels, channels)
        self.project_in_y = Conv1x1(channels, channels)
        self.gate_x = SpatialGate(channels, size, dropout)
        self.gate_y = SpatialGate(channels, size, dropout)
        self.project_out_x = Conv1x1(channels, channels)
        self.project_out_y = Conv1x1(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = self.input_x(x)
        y = self.input_y(self.upsample_y(y))
        gated_x = gelu(self.project_in_x(self.norm_x(x)))
        gated_y = gelu(self.project_in_y(self.norm_y(y)))
        y = y + self.dropout(self.project_out_y(gated_y * self.gate_x(gated_x)))
        x = x + y + self.dropout(self.project_out_x(gated_x * self.gate_y(gated_y)))
        return x, y


class SupervisedAttention(nn.Module):
    """SAM: a restored image of this stage, and features attended by it for the next one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = Conv(channels, channels, 3)
        self.to_image = Conv(channels, 3, 3)
        self.attention = Conv(3, channels, 3)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        restored = self.to_image(x) + image
        return self.features(x) * self.attention(restored).sigmoid() + x, restored


class ScaleTo(nn.Module):
    """Resize bilinearly by `ratio` (1/4 … 4) and project. Official `UpSampleRatio`, which resizes first.

    Both are linear and the resize's weights sum to one, so they commute: each is done at the smaller size.
    """

    def __init__(self, inputs: int, outputs: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.project = Conv1x1(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.resize(self.project(x)) if self.ratio > 1 else self.project(self.resize(x))

    def resize(self, x: Tensor) -> Tensor:
        if self.ratio == 1:
            return x
        size = [round(x.shape[1] * self.ratio), round(x.shape[2] * self.ratio)]
        planes = F.interpolate(  # jax.image.resize antialiases when it shrinks; torch can't in bfloat16
            x.permute(0, 3, 1, 2).float(),
            size,
            mode="bilinear",
            align_corners=False,
            antialias=self.ratio < 1,
        )
        return planes.permute(0, 2, 3, 1).to(x.dtype)
