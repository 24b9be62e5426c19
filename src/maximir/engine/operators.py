"""Operators that have native kernels: LayerNorm, and with gradients GELU and 3x3 convolutions (Winograd).

Where the kernels cannot be used, they are torch's; the results differ in rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from maximir.engine import kernels
from maximir.engine.streaming import Rows

aten = torch.ops.aten


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, flax's default."""
    return Gelu.apply(x) if kernels.take(x) else F.gelu(x, approximate="tanh")  # type: ignore[no-untyped-call]


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm of the last axis, with an epsilon of 1e-6."""
    channels = x.shape[-1]
    fits = not torch.is_grad_enabled() and channels % kernels.CHANNELS == 0
    if fits and kernels.take(x, layer.weight, layer.bias):
        return kernels.layer_norm(x, layer.weight, layer.bias)
    return F.layer_norm(x, [channels], layer.weight, layer.bias, layer.eps)


def convolution(
    layer: nn.Conv2d, x: Tensor, rows: Rows, negative_slope: float | None, last: bool
) -> Tensor | None:
    """A 3x3 convolution of rows [N, H, W, C] in float32; None where it is not for the kernels.

    Args:
        rows: where the image ends, padding comes; at the sides it always comes.
        negative_slope, last: see `network.layers.Conv`.
    """
    assert layer.bias is not None
    fits = (
        layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and x.shape[2] % 2 == 0
        and x.shape[3] % kernels.CHANNELS == 0
        and layer.out_channels % kernels.CONV_OUTPUTS == 0
        and (not torch.is_grad_enabled() or rows.total == 1)
        and kernels.take(x, layer.weight, layer.bias)
    )
    if not fits:
        return None
    ends = (rows.at_top, rows.at_bottom, layer.padding_mode == "replicate")
    if not torch.is_grad_enabled():
        slope = 1.0 if negative_slope is None else negative_slope
        out = rows if last else None
        return kernels.convolve(x, layer.weight, layer.bias, *ends, negative_slope=slope, out=out)
    y = Convolution.apply(x, layer.weight, layer.bias, *ends)  # type: ignore[no-untyped-call]
    return y if negative_slope is None else F.leaky_relu(y, negative_slope)


class Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return kernels.gelu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        if torch.is_grad_enabled() or not kernels.take(gradient):  # gradients of gradients are torch's
            return aten.gelu_backward(gradient, x, approximate="tanh")
        return kernels.gelu_backward(x, gradient)


class Convolution(torch.autograd.Function):
    """The map's gradient is such a convolution again, with transposed weights; the weights' is torch's."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, top: bool, bottom: bool, replicate: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.replicate = replicate
        return kernels.convolve(x, weight, bias, top, bottom, replicate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_map, to_weight, to_bias = ctx.needs_input_grad[:3]
        planes, gradient = x.permute(0, 3, 1, 2), gradient.contiguous()
        native = (
            to_map
            and not torch.is_grad_enabled()
            and weight.shape[1] % kernels.CONV_OUTPUTS == 0
            and kernels.take(gradient, weight)
        )
        if ctx.replicate:
            planes = F.pad(planes, (1, 1, 1, 1), mode="replicate")
        padding = [0, 0] if ctx.replicate else [1, 1]
        mask = [to_map and not native, to_weight, to_bias]
        ones = [1, 1]
        x_gradient, weight_gradient, bias_gradient = aten.convolution_backward(
            gradient.permute(0, 3, 1, 2),
            planes,
            weight,
            [len(weight)],
            ones,
            padding,
            ones,
            False,
            [0, 0],
            1,
            mask,
        )
        if native:
            turned = weight.flip(2, 3).transpose(0, 1).contiguous()
            if ctx.replicate:
                gradient = F.pad(gradient, (0, 0, 1, 1, 1, 1))
            x_gradient = kernels.convolve(gradient, turned, turned.new_zeros(len(turned)), True, True, False)
        elif to_map:
            x_gradient = x_gradient.permute(0, 2, 3, 1)
        if to_map and ctx.replicate:
            x_gradient = fold(fold(x_gradient, 1), 2)
        return x_gradient, weight_gradient, bias_gradient, None, None, None


def fold(x: Tensor, dim: int) -> Tensor:
    """The gradient to a map from that to the map with its outermost values repeated once along `dim`."""
    first, inside, last = torch.split(x, [1, x.shape[dim] - 2, 1], dim)
    inside = inside.clone()
    inside.narrow(dim, 0, 1).add_(first)
    inside.narrow(dim, inside.shape[dim] - 1, 1).add_(last)
    return inside
