"""GELU, LayerNorm, convolution and bilinear resizing of channels-last maps `[N, H, W, C]`.

GELU and the 3 x 3 convolution have native kernels for their gradients too. Where a kernel does not fit (a
GPU, another type than float32, a graph that is being captured), torch computes the same; the results differ
in rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from maximir.ops import kernels

aten = torch.ops.aten


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, flax's default."""
    return Gelu.apply(x) if kernels.take(x) else F.gelu(x, approximate="tanh")  # type: ignore[no-untyped-call]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm of the last axis."""
    channels = x.shape[-1]
    fits = not torch.is_grad_enabled() and channels % kernels.CHANNELS == 0 and eps == kernels.EPSILON
    if fits and kernels.take(x, weight, bias):
        return kernels.layer_norm(x, weight, bias)
    return F.layer_norm(x, [channels], weight, bias, eps)


def convolve(
    layer: nn.Conv2d,
    x: Tensor,
    *,
    top: bool = True,
    bottom: bool = True,
    negative_slope: float | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Convolve a map, padded by one pixel on each side: flax's 'SAME' for all kernels here.

    Args:
        layer: its weight, bias, stride and padding mode ("zeros" or "replicate").
        top, bottom: pad there. A strip that brings rows of its neighbours instead is not padded.
        negative_slope: slope of a leaky ReLU that follows; None: none does.
        out: where the result may be written; ignored while gradients are recorded.
    """
    ends = (top, bottom, layer.padding_mode == "replicate")
    if not fits_kernel(layer, x, top and bottom):
        y = convolve_in_torch(layer, x, *ends)
    elif not torch.is_grad_enabled():
        slope = 1.0 if negative_slope is None else negative_slope
        return kernels.convolve(x, layer.weight, layer.bias, *ends, negative_slope=slope, out=out)
    else:
        y = Convolution.apply(x, layer.weight, layer.bias, *ends)  # type: ignore[no-untyped-call]
    return y if negative_slope is None else F.leaky_relu(y, negative_slope)


def fits_kernel(layer: nn.Conv2d, x: Tensor, whole: bool) -> bool:
    """Return True if the native kernel computes this convolution; it has gradients of whole maps only."""
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.bias is not None
        and x.shape[2] % (2 if x.shape[3] % kernels.CHANNELS == 0 else kernels.IMAGE_WIDTH) == 0
        and (x.shape[3] % kernels.CHANNELS == 0 or x.shape[3] < kernels.CHANNELS)
        and layer.out_channels % kernels.BLOCK_CHANNELS == 0
        and (not torch.is_grad_enabled() or whole)
        and kernels.take(x, layer.weight, layer.bias)
    )


def convolve_in_torch(layer: nn.Conv2d, x: Tensor, top: bool, bottom: bool, replicate: bool) -> Tensor:
    planes = x.permute(0, 3, 1, 2)
    if replicate:
        planes, padding = F.pad(planes, (1, 1, int(top), int(bottom)), mode="replicate"), (0, 0)
    elif top == bottom:
        padding = (int(top), 1)
    else:
        planes, padding = F.pad(x, (0, 0, 0, 0, int(top), int(bottom))).permute(0, 3, 1, 2), (0, 1)
    return F.conv2d(planes, layer.weight, layer.bias, layer.stride, padding).permute(0, 2, 3, 1)


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Resize bilinearly to `factor` times the height and width, with half-pixel centres."""
    size = [factor * side for side in x.shape[1:3]]
    planes = F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1)


def shrink(x: Tensor, factor: int) -> Tensor:
    """Resize bilinearly with antialiasing, as `jax.image.resize`: a triangle as wide as two larger pixels.

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
    """The map's gradient is such a convolution with transposed weights; the weights' gradient is torch's."""

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
            and weight.shape[1] % kernels.BLOCK_CHANNELS == 0
            and kernels.take(gradient, weight)
        )
        if ctx.replicate:
            planes = F.pad(planes, (1, 1, 1, 1), mode="replicate")
        padding = [0, 0] if ctx.replicate else [1, 1]
        mask = [to_map and not native, to_weight, to_bias]
        ones = [1, 1]
        x_gradient, weight_gradient, bias_gradient = aten.convolution_backward(
            gradient.permute(0, 3, 1, 2), planes, weight, [len(weight)],
            ones, padding, ones, False, [0, 0], 1, mask,
        )  # fmt: skip
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
    """Gradient of a map, given that of the map with its outermost values repeated once along `dim`."""
    first, inside, last = torch.split(x, [1, x.shape[dim] - 2, 1], dim)
    inside = inside.clone()
    inside.narrow(dim, 0, 1).add_(first)
    inside.narrow(dim, inside.shape[dim] - 1, 1).add_(last)
    return inside
