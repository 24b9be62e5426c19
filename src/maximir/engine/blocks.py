"""Plans of the blocks: each computes in strips what the forward of its `network.blocks` class says.

A plan reads the module's parameters. It merges linear maps, writes results where they belong and overwrites
maps that it is allowed to. A module that `known` does not know is called plainly.

Arguments that return in many plans: `run`, the pass; `x` [N, H, W, C], of the float32 residual stream unless
said otherwise; `into`, a map of x's shape that may be overwritten (it may be x itself).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maximir.engine import native
from maximir.engine.known import knows, knows_all
from maximir.engine.merging import (
    Convolved,
    Map,
    Source,
    Upsampled,
    convolve_rows,
    convolve_strip,
    project,
)
from maximir.engine.sweeps import Pass, Rows
from maximir.network.blocks import (
    ConvChannelAttention,
    CrossGating,
    DenseChannelAttention,
    GatedMlp,
    MultiAxisGatedMlp,
    ResidualChannelAttention,
    SpatialGate,
    SupervisedAttention,
)
from maximir.network.layers import Axis, Conv
from maximir.network.model import Group, ShortcutBlock
from maximir.ops.functional import gelu

AXES: tuple[Axis, ...] = ("block", "grid")


def multi_axis(run: Pass, mab: MultiAxisGatedMlp, x: Tensor, into: Tensor | None = None) -> Tensor:
    """MAB: `out` is linear, so each axis adds its share in a sweep of its own: nothing is concatenated."""
    if native.fits(run, mab, x, dtype=torch.float32):
        tables = {axis: multi_axis_table(mab, axis) for axis in AXES}
        return native.multi_axis(run, x, into, mab.size, tables)

    def join_grid(x: Tensor, block: Tensor) -> tuple[Tensor]:
        return (x + (block + multi_axis_share(mab, x, "grid") + mab.project_out.bias),)

    (block,) = run.windows(
        lambda x: (multi_axis_share(mab, x, "block"),), [x], [None], mab.size, "block", feature=True
    )
    (y,) = run.windows(join_grid, [x, block], [block if into is None else into], mab.size, "grid")
    return y


def multi_axis_share(mab: MultiAxisGatedMlp, tokens: Tensor, axis: Axis) -> Tensor:
    """Return what one axis adds to its tokens, without the bias of the output projection."""
    weight_in, bias_in = half(mab.project_in.weight, axis, 0), half(mab.project_in.bias, axis, 0)
    mixed = branch(mab, axis)(gelu(F.linear(mab.norm(tokens), weight_in, bias_in)))
    return F.linear(mixed, half(mab.project_out.weight, axis, 1))


def multi_axis_table(mab: MultiAxisGatedMlp, axis: Axis) -> native.Table:
    """Return one axis' parameters. The bias of the output projection is the grid's to add."""
    mlp = branch(mab, axis)
    return [
        *parameters_of(mab.norm),
        half(mab.project_in.weight, axis, 0),
        half(mab.project_in.bias, axis, 0),
        *parameters_of(mlp.norm, mlp.project_in, mlp.gate_norm, mlp.mix, mlp.project_out),
        half(mab.project_out.weight, axis, 1),
        mab.project_out.bias if axis == "grid" else None,
    ]


def branch(mab: MultiAxisGatedMlp, axis: Axis) -> GatedMlp:
    return mab.grid if axis == "grid" else mab.block


def channel_attention(
    run: Pass,
    block: ResidualChannelAttention,
    x: Tensor,
    into: Tensor | None = None,
    shortcut: Tensor | None = None,
) -> Tensor:
    """RCAB and RDCAB: the mean needs all of y before the first sum, so two sweeps.

    Args:
        shortcut: a long shortcut that ends with this block, to be added; the result is a feature map then.
    """
    fits = native.fits(run, block, x, dtype=torch.float32, rows=True)
    if fits and isinstance(block, ConvChannelAttention):
        table = parameters_of(block.norm, block.conv1, block.conv2)
        y, sums = native.channel_attention(run, x, table, replicates(block.conv1))
        total = sums.sum(dim=1)
    else:
        y, total = transform(run, block, x)
    mean = total / (x.shape[1] * x.shape[2])
    weight = block.attention(mean.to(block.attention.squeeze.weight.dtype))
    if fits:
        return native.attend(run, x, y, weight, shortcut, into)

    def add(rows: Rows) -> Tensor:
        part = rows.of(x)
        out = rows.out(part.shape, part.device)
        weighted = (part, rows.of(y), weight[:, None, None])
        if shortcut is None:
            return torch.addcmul(*weighted, out=out)
        return torch.add(rows.of(shortcut), torch.addcmul(*weighted), out=out)

    if into is None or (shortcut is not None and into.dtype != y.dtype):
        into = y
    return run.rows(add, x.numel(), into, feature=shortcut is not None)


def transform(run: Pass, block: ResidualChannelAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return y, before the channels are weighted, and its sum over the image [N, C]."""
    totals: list[Tensor] = []

    def transform(rows: Rows) -> Tensor:
        y = transform_rows(block, x, rows)
        totals.append(y.sum(dim=(1, 2), dtype=torch.promote_types(y.dtype, torch.float32)))
        return y

    y = run.rows(transform, x.numel(), feature=True)
    return y, torch.stack(totals).sum(dim=0)


def transform_rows(block: ResidualChannelAttention, x: Tensor, rows: Rows) -> Tensor:
    """Return rows of y, before the channels are weighted."""
    if isinstance(block, ConvChannelAttention):
        y = block.norm(rows.of(x, halo=2))
        return convolve_strip(
            block.conv2, convolve_strip(block.conv1, y, rows, negative_slope=0.2), rows, last=True
        )
    return block.transform(rows.of(x))  # nothing but a position's own channels


def cross_gating(run: Pass, gate: CrossGating, from_x: Source, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cross-gating: X and Y are projected as they are made, the shares of the grid wait in maps.

    Args:
        y: a feature map; of half the size where the gate brings it up.
        size: number of values of X'.

    Returns:
        X', Y', feature maps.
    """
    if not knows_all(gate):
        gated_x, gated_y = gate(from_x.whole(), y)
        return gated_x, gated_y
    from_y = Map(y) if gate.upsample_y is None else Upsampled(gate.upsample_y, y)
    y, _ = project(run, gate.input_y, from_y, size=size, feature=True)
    x, _ = project(run, gate.input_x, from_x, size=size, feature=True)
    if native.fits(run, gate, x, y):
        tables = {axis: (gate_table(gate, "x", axis), gate_table(gate, "y", axis)) for axis in AXES}
        joins = parameters_of(gate.project_out_y, gate.project_out_x)
        native.cross_gate(run, x, y, gate.size, tables, joins)
        return x, y

    def ready_x(tokens: Tensor) -> Tensor:
        return gelu(gate.project_in_x(gate.norm_x(tokens)))

    def ready_y(tokens: Tensor) -> Tensor:
        return gelu(gate.project_in_y(gate.norm_y(tokens)))

    def join(x: Tensor, y: Tensor, grid_x: Tensor, grid_y: Tensor) -> tuple[Tensor, Tensor]:
        gated_x, gated_y = ready_x(x), ready_y(y)
        y = y + gate.project_out_y(gated_y * join_gate(gate.gate_x, gated_x, grid_x))
        x = x + y + gate.project_out_x(gated_x * join_gate(gate.gate_y, gated_y, grid_y))
        return x, y

    (grid_x,) = run.windows(
        lambda x: (gate_share(gate.gate_x, ready_x(x), "grid"),), [x], [None], gate.size, "grid", feature=True
    )
    (grid_y,) = run.windows(
        lambda y: (gate_share(gate.gate_y, ready_y(y), "grid"),), [y], [None], gate.size, "grid", feature=True
    )
    x, y = run.windows(join, [x, y, grid_x, grid_y], [x, y], gate.size, "block", feature=True)
    return x, y


def gate_share(gate: SpatialGate, tokens: Tensor, axis: Axis) -> Tensor:
    """Return one axis' share of the gating weights, without the bias of the output projection."""
    weight_in, bias_in = half(gate.project_in.weight, axis, 0), half(gate.project_in.bias, axis, 0)
    mixed = spatial_dense(gate, axis)(gelu(F.linear(gate.norm(tokens), weight_in, bias_in)))
    return F.linear(mixed, half(gate.project_out.weight, axis, 1))


def join_gate(gate: SpatialGate, tokens: Tensor, grid: Tensor) -> Tensor:
    """Return the whole gating weights of tokens in blocks, from the grid's share."""
    return grid + gate_share(gate, tokens, "block") + gate.project_out.bias


def gate_table(gate: CrossGating, which: Literal["x", "y"], axis: Axis) -> native.Table:
    """Return the parameters of one axis' share of G(X) or G(Y). The bias is the blocks' to add."""
    norm, project_in, spatial = (
        (gate.norm_x, gate.project_in_x, gate.gate_x)
        if which == "x"
        else (gate.norm_y, gate.project_in_y, gate.gate_y)
    )
    return [
        *parameters_of(norm, project_in, spatial.norm),
        half(spatial.project_in.weight, axis, 0),
        half(spatial.project_in.bias, axis, 0),
        *parameters_of(spatial_dense(spatial, axis)),
        half(spatial.project_out.weight, axis, 1),
        spatial.project_out.bias if axis == "block" else None,
    ]


def spatial_dense(gate: SpatialGate, axis: Axis) -> nn.Linear:
    return gate.grid if axis == "grid" else gate.block


def supervised_attention(
    run: Pass, sam: SupervisedAttention, x: Tensor, image: Tensor
) -> tuple[Tensor, Tensor]:
    """SAM: attended features (a feature map) and the restored image."""
    if not knows_all(sam):
        attended, restored = sam(x, image)
        return attended, restored
    if native.fits(run, sam, x, rows=True):
        restored = add(run, image, convolution(run, sam.to_image, x, feature=False), feature=False)
        table = parameters_of(sam.features, sam.attention)
        return native.supervise(run, x, restored, table, replicates(sam.features)), restored

    def attend(rows: Rows) -> tuple[Tensor, Tensor]:
        restored = convolve_strip(sam.to_image, rows.of(x, halo=2), rows) + rows.of(image, halo=1)
        weight = convolve_strip(sam.attention, restored, rows).sigmoid()
        attended = convolve_rows(sam.features, x, rows) * weight + rows.of(x)
        return attended, rows.trim(restored, halo=1)

    attended, restored = run.rows_to_many(attend, x.numel(), [None, None], [True, False])
    return attended, restored


def shortcut_block(run: Pass, block: ShortcutBlock, size: int, *sources: Source) -> Tensor:
    """Bottleneck, and the block of encoders and decoders: x + groups(x), x = project(concat(sources)).

    Args:
        size: number of values of x.

    Returns:
        A feature map.
    """
    if not knows(block, block.project, block.groups):
        maps = [source.whole() for source in sources]
        return run.keep(block(torch.cat(maps, dim=-1)))
    x, shortcut = project(run, block.project, *sources, size=size, keep=True)
    run.rest(shortcut)
    layers: list[nn.Module] = []
    for group in block.groups:
        layers += [*group] if isinstance(group, Group) and knows(group) else [group]
    into = None if shortcut is x else x
    for layer in layers:
        into = x = residual_layer(run, layer, x, into, shortcut if layer is layers[-1] else None)
    return x


def residual_layer(
    run: Pass, layer: nn.Module, x: Tensor, into: Tensor | None, shortcut: Tensor | None
) -> Tensor:
    """Run a layer of a group; the last one gets the long shortcut, and its result is a feature map."""
    if isinstance(layer, ConvChannelAttention | DenseChannelAttention) and knows_all(layer):
        return channel_attention(run, layer, x, into, shortcut)
    if isinstance(layer, MultiAxisGatedMlp) and knows_all(layer):
        y = multi_axis(run, layer, x, into)
    else:
        knows_all(layer)  # say so
        y = layer(x).to(x.dtype)
    return y if shortcut is None else add(run, shortcut, y)


def convolution(run: Pass, conv: Conv, x: Tensor, *, feature: bool) -> Tensor:
    if not knows(conv):
        y: Tensor = conv(x)
        return y
    if conv.out_channels in native.PICTURE_CHANNELS and native.fits(run, conv, x, rows=True):
        return native.picture(run, x, conv.out_channels, parameters_of(conv), replicates(conv))
    size = x.numel() // conv.in_channels * max(conv.in_channels, conv.out_channels)
    return run.rows(lambda rows: convolve_rows(conv, x, rows, last=True), size, feature=feature)


def replicates(conv: nn.Conv2d) -> bool:
    """Return True if the outermost pixels pad this convolution."""
    return conv.padding_mode == "replicate"


def add(run: Pass, x: Tensor, y: Tensor, *, feature: bool = True) -> Tensor:
    """x + y; may overwrite y."""

    def add_rows(rows: Rows) -> Tensor:
        a, b = rows.of(x), rows.of(y)
        return torch.add(a, b, out=rows.out(a.shape, a.device))

    return run.rows(add_rows, x.numel(), into=y, feature=feature)


def convolved(conv: Conv, image: Tensor) -> Source:
    """Return the convolution of an image as a source."""
    return Convolved(conv, image) if knows(conv) else Map(conv(image))


def parameters_of(*layers: nn.Linear | nn.LayerNorm | nn.Conv2d) -> Sequence[Tensor | None]:
    """Return each layer's weight and bias."""
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def half(parameter: Tensor, axis: Axis, dim: int) -> Tensor:
    """Return one axis' half of a projection: the first belongs to the grid, the second to the blocks."""
    return parameter.chunk(2, dim)[0 if axis == "grid" else 1]
