"""The building blocks of MAXIM (paper, figures 2 and 3; official `maxim/models/maxim.py`).

Shapes: N images, H x W positions, C channels. Feature maps are channels-last, `[N, H, W, C]`, so that
Dense and LayerNorm act on the last axis as in the paper, and a 1x1 convolution is a Dense.
"Tokens" are the P = s*s positions that a spatial Dense mixes: the s x s pixels of a block, or the
s x s pixels that lie H/s rows and W/s columns apart on a grid.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir import kernels
from maximir.streaming import Axis, Rows, half, sweep_rows, sweep_rows_to_many, sweep_windows

WHOLE = Rows()
DENSE_STD = 0.02  # official `weight_initializer`
TRUNCATED_STD = 0.87962566103423978  # std of a unit normal truncated at +-2, as flax's lecun_normal


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, flax's default."""
    return F.gelu(x, approximate="tanh")


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """flax's default kernel initialiser: truncated normal of variance 1 / fan_in."""
    std = fan_in**-0.5 / TRUNCATED_STD
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
        if kernels.usable(self, x, dtype=torch.float32):
            return kernels.layer_norm(self, x)
        return super().forward(x)


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
    """A k x k convolution of rows of a channels-last map; padding as flax's 'SAME', 1 in all cases here.

    Zeros pad the image, not a strip of it: the strip brings `halo` rows of its neighbours instead.
    """

    halo = 1

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        assert kernel - stride in (1, 2)
        super().__init__(inputs, outputs, kernel, stride, padding=self.halo)

    def reset_parameters(self) -> None:
        lecun_normal_(self.weight, self.weight[0].numel())
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, rows: Rows = WHOLE) -> Tensor:
        top, bottom = self.halo * rows.at_top, self.halo * rows.at_bottom
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

    def forward(self, x: Tensor, rows: Rows = WHOLE) -> Tensor:
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            return super().forward(x, rows)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype), rows)


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


def up_convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, bias, stride=2).permute(0, 2, 3, 1)


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


class Source(Protocol):
    """A map whose rows are made when they are needed."""

    @property
    def channels(self) -> int: ...

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        """Its rows after a product with `weight` [outputs, channels]."""
        ...


@dataclass(frozen=True)
class Map:
    """A map that is there."""

    x: Tensor

    @property
    def channels(self) -> int:
        return self.x.shape[-1]

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        return lambda rows: F.linear(rows.of(self.x), weight)


@dataclass(frozen=True)
class Convolved:
    """A convolution of an image."""

    conv: ImageConv
    image: Tensor

    @property
    def channels(self) -> int:
        return self.conv.out_channels

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        return lambda rows: F.linear(self.conv(rows.of(self.image, Conv.halo), rows), weight)


@dataclass(frozen=True)
class Upsampled:
    """A map of half the size, brought up: a linear map too, merged with the one that follows."""

    up: ConvTranspose
    x: Tensor

    @property
    def channels(self) -> int:
        return self.up.out_channels

    def through(self, weight: Tensor) -> Callable[[Rows], Tensor]:
        assert self.up.bias is not None
        kernel = torch.einsum("iohw,po->iphw", self.up.weight, weight)
        bias = weight @ self.up.bias
        return lambda rows: up_convolve(rows.of(self.x), kernel, bias)


def project(linear: nn.Linear, *sources: Source) -> Callable[[Rows], Tensor]:
    """Rows of linear(concat(sources)). Each goes through its own columns: nothing is concatenated."""
    weights = torch.split(linear.weight, [source.channels for source in sources], dim=1)
    terms = [source.through(weight) for source, weight in zip(sources, weights, strict=True)]

    def rows_of(rows: Rows) -> Tensor:
        return functools.reduce(torch.add, [linear.bias, *(term(rows) for term in terms)])

    return rows_of


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
            return kernels.multi_axis(self, x, into, running)
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


class ChannelAttention(nn.Module):
    """Squeeze and excitation: the global mean [N, C] decides each channel's weight. Official `CALayer`."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = Conv1x1(channels, channels // reduction)
        self.excite = Conv1x1(channels // reduction, channels)

    def forward(self, mean: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(mean))).sigmoid()


class ResidualChannelAttention(nn.Module):
    """x + y * attention(mean(y)), y = transform(x): needs all of y before the first sum, so two sweeps."""

    attention: ChannelAttention

    def transform(self, x: Tensor, rows: Rows) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, into: Tensor | None = None) -> Tensor:
        totals: list[Tensor] = []

        def transform(rows: Rows) -> Tensor:
            y = self.transform(x, rows)
            totals.append(y.sum(dim=(1, 2), dtype=torch.promote_types(y.dtype, torch.float32)))
            return y

        y = sweep_rows(transform, x.numel(), feature=True)
        mean = torch.stack(totals).sum(dim=0) / (x.shape[1] * x.shape[2])
        weight = self.attention(mean.to(self.attention.squeeze.weight.dtype))[:, None, None]
        return sweep_rows(
            lambda rows: rows.of(x) + rows.of(y) * weight, x.numel(), y if into is None else into
        )


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
        return self.conv2(F.leaky_relu(self.conv1(y, rows), 0.2), rows)


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
            kernels.cross_gate(self, x, y, running)
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


class ScaleTo(nn.Module):
    """Resize bilinearly by `ratio` (1/4 … 4) and project. Official `UpSampleRatio`, which resizes first.

    Both are linear and the resize's weights sum to one, so they commute: each is done at the smaller size.
    """

    def __init__(self, inputs: int, outputs: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.project = Conv1x1(inputs, outputs)

    def through(self, x: Tensor, weight: Tensor) -> Callable[[Rows], Tensor]:
        """Rows of the result times `weight`, from the whole map `x`; both projections in one product."""
        bias = weight @ self.project.bias
        weight = weight @ self.project.weight
        if self.ratio == 1:
            return lambda rows: F.linear(rows.of(x), weight, bias)
        # One row of the smaller map is as far as a resize reaches: 2 taps up, 2 / ratio taps down.
        halo = 1 if self.ratio > 1 else round(1 / self.ratio)

        def rows_of(rows: Rows) -> Tensor:
            strip = rows.of(x, halo)
            if self.ratio > 1:
                strip = self.resize(F.linear(strip, weight, bias))
            else:
                strip = F.linear(self.resize(strip), weight, bias)
            return rows.trim(strip, round(halo * self.ratio))

        return rows_of

    def resize(self, x: Tensor) -> Tensor:
        return enlarge(x, round(self.ratio)) if self.ratio > 1 else shrink(x, round(1 / self.ratio))


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Bilinear, half-pixel centres."""
    planes = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=factor, mode="bilinear", align_corners=False)
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
    inside = [torch.ones(size, device=x.device, dtype=planes.dtype) for size in planes.shape[2:]]
    for part in inside:
        part[0] = part[-1] = 8 / 7
    return planes.permute(0, 2, 3, 1) * (inside[0][:, None] * inside[1])[..., None]
