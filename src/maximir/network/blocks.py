"""The blocks of MAXIM: figures 2 (b), 2 (c) and 3 of the paper. Shapes and tokens: see `layers`.

A block's forward is its formula, in the sweeps by which the engine carries it out: a sweep is a function of a
strip, and where the engine has a native kernel for the whole block, that does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir.engine import kernels
from maximir.engine.operators import gelu
from maximir.engine.sources import Source, project
from maximir.engine.streaming import Axis, Rows, half, sweep_rows, sweep_rows_to_many, sweep_windows
from maximir.network.layers import (
    Conv,
    Conv1x1,
    ConvTranspose,
    Dense,
    ImageConv,
    LayerNorm,
    SpatialDense,
)

AXES: tuple[Axis, ...] = ("block", "grid")


def parameters_of(*layers: nn.Linear | nn.LayerNorm) -> Sequence[Tensor]:
    """Each layer's weight and bias."""
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


class GatedMlp(nn.Module):
    """gMLP along one axis: x + out(u * (mix(LN(v)) + 1)), u, v = split(gelu(in(LN(x)))).

    Official `GridGmlpLayer` and `BlockGmlpLayer` with their gating units: which axis it is, the tokens
    [P, M, C] know.
    """

    def __init__(self, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.project_in = Dense(channels, 2 * channels)
        self.gate_norm = LayerNorm(channels)
        self.mix = SpatialDense(size, bias_init=0.0)
        self.project_out = Dense(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        u, v = gelu(self.project_in(self.norm(tokens))).chunk(2, dim=-1)
        gated = u * (self.mix(self.gate_norm(v)) + 1)
        return tokens + self.dropout(self.project_out(gated))


class MultiAxisGatedMlp(nn.Module):
    """The multi-axis gated MLP block (MAB): half of the channels mix on the grid, half in blocks.

    x + out(concat(grid(u), block(v))): `out` is linear, so each axis adds its share in a sweep of its own.
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

    def forward(self, x: Tensor, into: Tensor | None = None) -> Tensor:
        if running := kernels.usable(self, x, dtype=torch.float32):
            tables = {axis: self.table(axis) for axis in AXES}
            return kernels.multi_axis(x, into, self.size, tables, running)
        (block,) = sweep_windows(
            lambda x: (self.branch(x, "block"),), [x], [None], self.size, "block", feature=True
        )
        (y,) = sweep_windows(self.join_grid, [x, block], [block if into is None else into], self.size, "grid")
        return y

    def join_grid(self, x: Tensor, block: Tensor) -> tuple[Tensor]:
        return (x + self.dropout(block + self.branch(x, "grid") + self.project_out.bias),)

    def branch(self, tokens: Tensor, axis: Axis) -> Tensor:
        """What one axis adds to its tokens, without the bias of the output projection."""
        weight_in, bias_in = half(self.project_in.weight, axis, 0), half(self.project_in.bias, axis, 0)
        mixed = gelu(F.linear(self.norm(tokens), weight_in, bias_in))
        mixed = (self.grid if axis == "grid" else self.block)(mixed)
        return F.linear(mixed, half(self.project_out.weight, axis, 1))

    def table(self, axis: Axis) -> kernels.Table:
        """One axis' parameters for the kernels. The bias of the output projection is the grid's to add."""
        mlp = self.grid if axis == "grid" else self.block
        return [
            *parameters_of(self.norm),
            half(self.project_in.weight, axis, 0),
            half(self.project_in.bias, axis, 0),
            *parameters_of(mlp.norm, mlp.project_in, mlp.gate_norm, mlp.mix, mlp.project_out),
            half(self.project_out.weight, axis, 1),
            self.project_out.bias if axis == "grid" else None,
        ]


class ChannelAttention(nn.Module):
    """Squeeze and excitation: the global mean [N, C] decides each channel's weight. Official `CALayer`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = Conv1x1(channels, channels // reduction)
        self.excite = Conv1x1(channels // reduction, channels)

    def forward(self, mean: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(mean))).sigmoid()


class ResidualChannelAttention(nn.Module):
    """x + y * attention(mean(y)), y = transform(x): needs all of y before the first sum, so two sweeps.

    The second also adds the long shortcut that ends with this block, if one does.
    """

    attention: ChannelAttention

    def transform(self, x: Tensor, rows: Rows) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, into: Tensor | None = None, shortcut: Tensor | None = None) -> Tensor:
        totals: list[Tensor] = []

        def transform(rows: Rows) -> Tensor:
            y = self.transform(x, rows)
            totals.append(y.sum(dim=(1, 2), dtype=torch.promote_types(y.dtype, torch.float32)))
            return y

        y = sweep_rows(transform, x.numel(), feature=True)
        mean = torch.stack(totals).sum(dim=0) / (x.shape[1] * x.shape[2])
        weight = self.attention(mean.to(self.attention.squeeze.weight.dtype))[:, None, None]

        def add(rows: Rows) -> Tensor:
            part = rows.of(x)
            out = rows.out(part.shape, part.device)
            if shortcut is None:
                return torch.addcmul(part, rows.of(y), weight, out=out)
            return torch.add(rows.of(shortcut), torch.addcmul(part, rows.of(y), weight), out=out)

        # With the shortcut the result is a feature map, as y is; without, of the residual stream.
        if into is None or (shortcut is not None and into.dtype != y.dtype):
            into = y
        return sweep_rows(add, x.numel(), into, feature=shortcut is not None)


class ConvChannelAttention(ResidualChannelAttention):
    """Residual channel attention block with convolutions, of encoders and decoders. Official `RCAB`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = Conv(channels, channels, 3)
        self.attention = ChannelAttention(channels, reduction)

    def transform(self, x: Tensor, rows: Rows) -> Tensor:
        y = self.norm(rows.of(x, halo=2))
        return self.conv2(self.conv1(y, rows, negative_slope=0.2), rows, last=True)


class DenseChannelAttention(ResidualChannelAttention):
    """Residual channel attention block with an MLP, of the bottleneck. Official `RDCAB`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.dense1 = Dense(channels, channels)
        self.dense2 = Dense(channels, channels)
        self.attention = ChannelAttention(channels, reduction)

    def transform(self, x: Tensor, rows: Rows) -> Tensor:
        return self.dense2(gelu(self.dense1(self.norm(rows.of(x)))))


class SpatialGate(nn.Module):
    """Gating weights G(.) that one feature map gives another. Official `GetSpatialGatingWeights`.

    As in `MultiAxisGatedMlp`, each axis adds its share: `forward` makes one of them from tokens [P, M, C].
    """

    def __init__(self, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.project_in = Conv1x1(channels, 2 * channels)
        self.grid = SpatialDense(size, bias_init=1.0)
        self.block = SpatialDense(size, bias_init=1.0)
        self.project_out = Conv1x1(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, axis: Axis) -> Tensor:
        weight_in, bias_in = half(self.project_in.weight, axis, 0), half(self.project_in.bias, axis, 0)
        x = gelu(F.linear(self.norm(tokens), weight_in, bias_in))
        x = (self.grid if axis == "grid" else self.block)(x)
        return F.linear(x, half(self.project_out.weight, axis, 1))

    def join_block(self, tokens: Tensor, grid: Tensor) -> Tensor:
        """The whole gating weights of tokens, from the grid's share."""
        return self.dropout(grid + self(tokens, "block") + self.project_out.bias)

    def table(self, axis: Axis) -> kernels.Table:
        """One axis' parameters for the kernels. The bias of the output projection is the blocks' to add."""
        return [
            *parameters_of(self.norm),
            half(self.project_in.weight, axis, 0),
            half(self.project_in.bias, axis, 0),
            *parameters_of(self.grid if axis == "grid" else self.block),
            half(self.project_out.weight, axis, 1),
            self.project_out.bias if axis == "block" else None,
        ]


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

    def forward(self, from_x: Source, from_y: Source, size: int) -> tuple[Tensor, Tensor]:
        y = sweep_rows(project(self.input_y, from_y), size, feature=True)
        x = sweep_rows(project(self.input_x, from_x), size, feature=True)
        if running := kernels.usable(self, x, y):
            tables = {axis: (self.table("x", axis), self.table("y", axis)) for axis in AXES}
            joins = parameters_of(self.project_out_y, self.project_out_x)
            kernels.cross_gate(x, y, self.size, tables, joins, running)
            return x, y
        (grid_x,) = sweep_windows(
            lambda x: (self.gate_x(self.ready_x(x), "grid"),), [x], [None], self.size, "grid", feature=True
        )
        (grid_y,) = sweep_windows(
            lambda y: (self.gate_y(self.ready_y(y), "grid"),), [y], [None], self.size, "grid", feature=True
        )
        x, y = sweep_windows(self.gate, [x, y, grid_x, grid_y], [x, y], self.size, "block", feature=True)
        return x, y

    def ready_x(self, tokens: Tensor) -> Tensor:
        return gelu(self.project_in_x(self.norm_x(tokens)))

    def ready_y(self, tokens: Tensor) -> Tensor:
        return gelu(self.project_in_y(self.norm_y(tokens)))

    def gate(self, x: Tensor, y: Tensor, grid_x: Tensor, grid_y: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of X, Y and the grids' shares of their gating weights → tokens of X', Y'."""
        gated_x, gated_y = self.ready_x(x), self.ready_y(y)
        y = y + self.dropout(self.project_out_y(gated_y * self.gate_x.join_block(gated_x, grid_x)))
        x = x + y + self.dropout(self.project_out_x(gated_x * self.gate_y.join_block(gated_y, grid_y)))
        return x, y

    def table(self, which: Literal["x", "y"], axis: Axis) -> kernels.Table:
        """For the kernels, what makes one axis' share of the gating weights G(X) or G(Y)."""
        norm, project_in, gate = (
            (self.norm_x, self.project_in_x, self.gate_x)
            if which == "x"
            else (self.norm_y, self.project_in_y, self.gate_y)
        )
        return [*parameters_of(norm, project_in), *gate.table(axis)]


class SupervisedAttention(nn.Module):
    """SAM: a restored image of this stage, and features attended by it for the next one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = Conv(channels, channels, 3)
        self.to_image = ImageConv(channels, 3)
        self.attention = ImageConv(3, channels)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        def attend(rows: Rows) -> tuple[Tensor, Tensor]:
            restored = self.to_image(rows.of(x, halo=2), rows) + rows.of(image, halo=1)
            weight = self.attention(restored, rows).sigmoid()
            attended = self.features(rows.of(x, halo=1), rows) * weight + rows.of(x)
            return attended, rows.trim(restored, halo=1)

        attended, restored = sweep_rows_to_many(attend, x.numel(), [None, None], [True, False])
        return attended, restored
