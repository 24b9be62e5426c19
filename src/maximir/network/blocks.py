"""The blocks of MAXIM: figures 2 (b), 2 (c) and 3 of the paper. Shapes and tokens: see `layers`.

Each forward computes the paper's formula on whole maps `[N, H, W, C]`. `maximir.engine.blocks` computes the
same formulas in strips.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir.network.config import IMAGE_CHANNELS
from maximir.network.layers import (
    Conv,
    Conv1x1,
    ConvTranspose,
    Dense,
    ImageConv,
    LayerNorm,
    SpatialDense,
    mix_windows,
)
from maximir.ops.functional import gelu


class GatedMlp(nn.Module):
    """gMLP along one axis: x + out(u * (mix(LN(v)) + 1)), u, v = split(gelu(in(LN(x)))).

    Official `GridGmlpLayer` and `BlockGmlpLayer` with their gating units: the axis is in the tokens.
    """

    def __init__(self, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.project_in = Dense(channels, 2 * channels)
        self.gate_norm = LayerNorm(channels)
        self.mix = SpatialDense(size, bias_init=0.0)
        self.project_out = Dense(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:  # [P, M, C] → the same
        u, v = gelu(self.project_in(self.norm(tokens))).chunk(2, dim=-1)
        gated = u * (self.mix(self.gate_norm(v)) + 1)
        return tokens + self.dropout(self.project_out(gated))


class MultiAxisGatedMlp(nn.Module):
    """The multi-axis gated MLP block (MAB): half of the channels mix on the grid, half in blocks.

    x + out(concat(grid(u), block(v))), u, v = split(gelu(in(LN(x)))).
    """

    def __init__(self, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.norm = LayerNorm(channels)
        self.project_in = Dense(channels, 2 * channels)
        self.grid = GatedMlp(channels, size, dropout)
        self.block = GatedMlp(channels, size, dropout)
        self.project_out = Dense(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        u, v = gelu(self.project_in(self.norm(x))).chunk(2, dim=-1)
        u = mix_windows(self.grid, u, self.size, "grid")
        v = mix_windows(self.block, v, self.size, "block")
        return x + self.dropout(self.project_out(torch.cat([u, v], dim=-1)))


class ChannelAttention(nn.Module):
    """Squeeze and excitation: the global mean [N, C] decides each channel's weight. Official `CALayer`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = Conv1x1(channels, channels // reduction)
        self.excite = Conv1x1(channels // reduction, channels)

    def forward(self, mean: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(mean))).sigmoid()


class ResidualChannelAttention(nn.Module):
    """x + y * attention(mean(y)), y = transform(x)."""

    attention: ChannelAttention

    def transform(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.transform(x)
        return x + y * self.attention(y.mean(dim=(1, 2)))[:, None, None]


class ConvChannelAttention(ResidualChannelAttention):
    """Residual channel attention block with convolutions, of encoders and decoders. Official `RCAB`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = Conv(channels, channels, 3)
        self.attention = ChannelAttention(channels, reduction)

    def transform(self, x: Tensor) -> Tensor:
        return self.conv2(F.leaky_relu(self.conv1(self.norm(x)), 0.2))


class DenseChannelAttention(ResidualChannelAttention):
    """Residual channel attention block with an MLP, of the bottleneck. Official `RDCAB`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.dense1 = Dense(channels, channels)
        self.dense2 = Dense(channels, channels)
        self.attention = ChannelAttention(channels, reduction)

    def transform(self, x: Tensor) -> Tensor:
        return self.dense2(gelu(self.dense1(self.norm(x))))


class SpatialGate(nn.Module):
    """Gating weights G(.) that one feature map gives another. Official `GetSpatialGatingWeights`.

    out(concat(grid(u), block(v))), u, v = split(gelu(in(LN(x)))), with a spatial Dense on each axis.
    """

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
        u = mix_windows(self.grid, u, self.size, "grid")
        v = mix_windows(self.block, v, self.size, "block")
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
        self.size = size
        self.upsample_y = None if upsample_from is None else ConvTranspose(upsample_from, channels)
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
        """X `[N, H, W, inputs_x]`, Y → X', Y' `[N, H, W, C]`."""
        x = self.input_x(x)
        y = self.input_y(y if self.upsample_y is None else self.upsample_y(y))
        gated_x = gelu(self.project_in_x(self.norm_x(x)))
        gated_y = gelu(self.project_in_y(self.norm_y(y)))
        y = y + self.dropout(self.project_out_y(gated_y * self.gate_x(gated_x)))
        x = x + y + self.dropout(self.project_out_x(gated_x * self.gate_y(gated_y)))
        return x, y


class SupervisedAttention(nn.Module):
    """SAM: a restored image of this stage, and features attended by it for the next one. Official `SAM`."""

    def __init__(self, channels: int, image_channels: int = IMAGE_CHANNELS) -> None:
        super().__init__()
        self.features = Conv(channels, channels, 3)
        self.to_image = ImageConv(channels, image_channels)
        self.attention = ImageConv(image_channels, channels)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, H, W, C]`, image `[N, H, W, 3]` → attended features, restored image."""
        restored = image + self.to_image(x)
        attended = x + self.features(x) * self.attention(restored).sigmoid()
        return attended, restored
