"""MAXIM: a multi-stage, multi-scale UNet of multi-axis gated MLPs (paper, figure 2).

Levels count from the finest (0, full size, C channels) to the coarsest (2, a quarter, 4C channels).
Inside, maps are channels-last `[N, H, W, C]`; images at the border are `[N, 3, H, W]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maximir.engine import streaming
from maximir.engine.sources import Convolved, Map, Source, Through, Upsampled, project, together
from maximir.engine.streaming import Rows, keep, rest, sweep_rows
from maximir.errors import MaximirError, UsageError
from maximir.network.blocks import (
    ConvChannelAttention,
    CrossGating,
    DenseChannelAttention,
    MultiAxisGatedMlp,
    SupervisedAttention,
)
from maximir.network.config import BOTTLENECK_WINDOW, LEVELS, SIZE_MULTIPLE, WINDOWS, MaximConfig
from maximir.network.layers import Conv, Conv1x1, ConvTranspose, ImageConv, Modules, ScaleTo, subsample

FINE_TO_COARSE = tuple(range(LEVELS))
COARSE_TO_FINE = tuple(reversed(FINE_TO_COARSE))


class StageFeatures(NamedTuple):
    """What a stage hands to the next, each by level."""

    gating: list[Tensor]  # sums of what encoder and decoder made
    attended: list[Tensor]  # of the supervised attention modules


def groups(
    config: MaximConfig,
    channels: int,
    window: int,
    attention: type[ConvChannelAttention] | type[DenseChannelAttention],
) -> nn.Sequential:
    """Pairs of a multi-axis gMLP and a channel attention block."""
    return nn.Sequential(
        *(
            nn.Sequential(
                MultiAxisGatedMlp(channels, window, config.dropout), attention(channels, config.reduction)
            )
            for _ in range(config.groups)
        )
    )


def with_shortcut(groups: nn.Sequential, x: Tensor, recompute: bool) -> Tensor:
    """x + groups(x), the long shortcut. May overwrite x.

    Args:
        recompute: for gradients, keep each layer's input only, and run the layer again when it is needed.
    """
    shortcut = keep(x)
    rest(shortcut)
    into = None if shortcut is x else x
    layers = [layer for group in groups for layer in group]  # type: ignore[attr-defined]
    for layer in layers:
        more = (shortcut,) if layer is layers[-1] else ()  # added on the way
        if recompute and torch.is_grad_enabled():
            x = checkpoint(layer, x, None, *more, use_reentrant=False)
        else:
            into = x = layer(x, into, *more)
    return x


def add(x: Tensor, y: Tensor, *, feature: bool = True) -> Tensor:
    """x + y; may overwrite y."""

    def add_rows(rows: Rows) -> Tensor:
        a, b = rows.of(x), rows.of(y)
        return torch.add(a, b, out=rows.out(a.shape, a.device))

    return sweep_rows(add_rows, x.numel(), into=y, feature=feature)


def conv_rows(conv: Conv, x: Tensor, rows: Rows) -> Tensor:
    return conv(rows.of(x, Conv.halo), rows, last=True)


def convolve(conv: Conv, x: Tensor, *, feature: bool = False) -> Tensor:
    size = x.numel() // conv.in_channels * max(conv.in_channels, conv.out_channels)
    return sweep_rows(partial(conv_rows, conv, x), size, feature=feature)


class Bottleneck(nn.Module):
    """Official `BottleneckBlock`."""

    recompute = False

    def __init__(self, config: MaximConfig, channels: int) -> None:
        super().__init__()
        self.project = Conv1x1(channels, channels)
        self.groups = groups(config, channels, BOTTLENECK_WINDOW, DenseChannelAttention)

    def forward(self, x: Tensor) -> Tensor:
        x = sweep_rows(project(self.project, Map(x)), x.numel())
        return with_shortcut(self.groups, x, self.recompute)


class EncoderDecoderBlock(nn.Module):
    """What encoders and decoders share: project, then groups of MAB and RCAB, long shortcut."""

    recompute = False

    def __init__(self, config: MaximConfig, inputs: int, channels: int, window: int) -> None:
        super().__init__()
        self.project = Conv1x1(inputs, channels)
        self.groups = groups(config, channels, window, ConvChannelAttention)

    def forward(self, from_x: Source, other: Source, size: int) -> Tensor:
        x = sweep_rows(project(self.project, from_x, other), size)
        return with_shortcut(self.groups, x, self.recompute)


class Encoder(nn.Module):
    """One level down. From the second stage on, gated with what the stage before made of this level.

    `Stage` calls the parts one by one: what it passes to a module lives until that module returns.
    """

    def __init__(self, config: MaximConfig, level: int, *, first_stage: bool) -> None:
        super().__init__()
        channels = config.features << level
        inputs = channels if level == 0 else channels // 2
        self.block = EncoderDecoderBlock(config, inputs + channels, channels, WINDOWS[level])
        self.gate = None if first_stage else CrossGating(channels, channels, WINDOWS[level], config.dropout)
        self.down = Conv(channels, channels, 4, stride=2)


class Decoder(nn.Module):
    """One level up."""

    def __init__(self, config: MaximConfig, level: int) -> None:
        super().__init__()
        channels = config.features << level
        below = channels if level == LEVELS - 1 else 2 * channels
        self.up = ConvTranspose(below, channels)
        self.block = EncoderDecoderBlock(config, channels + LEVELS * channels, channels, WINDOWS[level])

    def forward(self, x: Tensor, skip: Source) -> Tensor:
        return self.block(Upsampled(self.up, x), skip, 2 * x.numel())


class MultiScaleFusion(nn.Module):
    """All levels' maps, brought to one level's size and channels and concatenated in the given order."""

    def __init__(self, config: MaximConfig, level: int, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order
        self.scales = Modules(
            ScaleTo(config.features << source, config.features << level, 2.0 ** (source - level))
            for source in order
        )


@dataclass(frozen=True)
class Fused:
    """What a fusion makes of maps by level."""

    fusion: MultiScaleFusion
    by_level: list[Tensor]

    @property
    def channels(self) -> int:
        return sum(scale.project.out_features for scale in self.fusion.scales)

    def through(self, weight: Tensor) -> Through:
        parts = weight.chunk(len(self.fusion.order), dim=1)
        return together(
            [
                scale.through(self.by_level[source], part)
                for source, scale, part in zip(self.fusion.order, self.fusion.scales, parts, strict=True)
            ]
        )


class Stage(nn.Module):
    """One UNet: encoders, bottleneck, cross-gated multi-scale skips, decoders, an image at every scale."""

    def __init__(self, config: MaximConfig, *, first: bool, last: bool) -> None:
        super().__init__()
        channels = [config.features << level for level in FINE_TO_COARSE]
        coarsest = channels[-1]
        self.last = last
        self.input_convs = Modules(ImageConv(3, c) for c in channels)
        self.input_gates: Modules[CrossGating] = Modules(
            ()
            if first
            else (CrossGating(c, c, w, config.dropout) for c, w in zip(channels, WINDOWS, strict=True))
        )
        self.encoders = Modules(Encoder(config, level, first_stage=first) for level in FINE_TO_COARSE)
        self.bottlenecks = Modules(Bottleneck(config, coarsest) for _ in range(config.bottlenecks))
        self.encoder_fusions = Modules(
            MultiScaleFusion(config, level, FINE_TO_COARSE) for level in FINE_TO_COARSE
        )
        self.skip_gates = Modules(
            CrossGating(
                LEVELS * channels[level],
                channels[level],
                WINDOWS[level],
                config.dropout,
                upsample_from=channels[min(level + 1, LEVELS - 1)],
            )
            for level in FINE_TO_COARSE
        )
        self.skip_fusions = Modules(
            MultiScaleFusion(config, level, COARSE_TO_FINE) for level in FINE_TO_COARSE
        )
        self.decoders = Modules(Decoder(config, level) for level in FINE_TO_COARSE)
        self.outputs = Modules(ImageConv(c, 3) if last else SupervisedAttention(c) for c in channels)

    def forward(
        self, images: list[Tensor], previous: StageFeatures | None
    ) -> tuple[list[Tensor], StageFeatures]:
        """`images` by level → restored images by level, and features for the next stage."""
        inputs: list[Tensor] = []
        for level, (conv, image) in enumerate(zip(self.input_convs, images, strict=True)):
            if previous is None:
                inputs.append(convolve(conv, image, feature=True))
            else:
                size = previous.attended[0].numel()
                other = Map(previous.attended.pop(0))
                inputs.append(self.input_gates[level](Convolved(conv, image), other, size)[0])
                del other
            rest(inputs[-1])

        x, encoded = inputs[0], []
        for encoder in self.encoders:
            x = encoder.block(Map(x), Map(inputs[0]), inputs.pop(0).numel())
            if encoder.gate is not None and previous is not None:
                x = encoder.gate(Map(x), Map(previous.gating.pop(0)), x.numel())[0]
            encoded.append(x)
            x = convolve(encoder.down, x, feature=True)
            rest(encoded[-1], x)

        for bottleneck in self.bottlenecks:
            x = bottleneck(x)
            rest(x)

        skips = list(encoded)
        global_feature = x
        for level in COARSE_TO_FINE:
            gate = self.skip_gates[level]
            assert gate.upsample_y is not None
            brought_up = Upsampled(gate.upsample_y, global_feature)
            fused = Fused(self.encoder_fusions[level], encoded)
            skips[level], global_feature = gate(fused, brought_up, encoded[level].numel())
            rest(skips[level], global_feature)
        del global_feature, brought_up

        restored, gating, attended = list(images), encoded, list(skips)
        if self.last:
            encoded.clear()
        for level in COARSE_TO_FINE:
            x = self.decoders[level](x, Fused(self.skip_fusions[level], skips))
            rest(x)
            output = self.outputs[level]
            if isinstance(output, SupervisedAttention):
                attended[level], restored[level] = output(x, images[level])
                gating[level] = add(x, gating[level])
                rest(gating[level], attended[level])
            else:
                restored[level] = add(images[level], convolve(output, x), feature=False)
        return restored, StageFeatures(gating, attended)


class Maxim(nn.Module):
    """The network.

    Args:
        config: its sizes; see `maximir.network.config.VARIANTS` for the six official ones.
    """

    def __init__(self, config: MaximConfig) -> None:
        super().__init__()
        self.config = config
        last = config.stages - 1
        self.stages = Modules(Stage(config, first=s == 0, last=s == last) for s in range(config.stages))
        for module in self.modules():
            if isinstance(module, Conv):
                module.padding_mode = config.padding_mode

    def forward(self, image: Tensor) -> list[list[Tensor]]:
        """Restore images at every stage and scale.

        Args:
            image: `[N, 3, H, W]`, floating, values in [0, 1]; H and W multiples of 64.

        Returns:
            `outputs[stage][scale]`, coarse to fine: `[N, 3, H/4, W/4]`, `[N, 3, H/2, W/2]`,
            `[N, 3, H, W]`, not clipped. The restored image is `outputs[-1][-1]`.

        Raises:
            MaximirError: wrong shape or type.
        """
        check_image(image)
        dtype = next(self.parameters()).dtype
        if image.dtype != dtype and not torch.is_autocast_enabled(image.device.type):
            raise MaximirError(
                f"the network has {dtype} weights, but the image is {image.dtype}: convert one"
            )
        images = [subsample(image, 2**level).permute(0, 2, 3, 1) for level in FINE_TO_COARSE]
        outputs = []
        features = None
        # Maps are float32 or a feature type; and of nothing there are no strips.
        with streaming.image(image.shape[2], strips=dtype == torch.float32 and image.shape[0] > 0):
            for stage in self.stages:
                restored, features = stage(images, features)
                outputs.append([restored[level].permute(0, 3, 1, 2) for level in COARSE_TO_FINE])
        return outputs

    def recompute(self, on: bool) -> None:
        """In training, compute the blocks again for their gradients instead of keeping what is in them."""
        for module in self.modules():
            if isinstance(module, EncoderDecoderBlock | Bottleneck):
                module.recompute = on

    def first_stages(self, count: int) -> Maxim:
        """The network that ends after `count` stages, with these weights (shared, not copied).

        Every stage is supervised (paper, section 3.3): its attention module makes a picture at every scale.
        The shorter network makes just that, so its `outputs[-1]` is `outputs[count - 1]` of this one.

        Raises:
            UsageError: fewer than one stage, or more than there are.
        """
        if not 1 <= count <= self.config.stages:
            raise UsageError(f"stages must be 1 to {self.config.stages} for this model, not {count}")
        if count == self.config.stages:
            return self
        with torch.device("meta"):
            shorter = Maxim(dataclasses.replace(self.config, stages=count))
        last = f"stages.{count - 1}.outputs."
        state = {}
        for name, value in self.state_dict(keep_vars=True).items():
            if name.startswith(last):
                name = name.replace(".to_image.", ".")
            state[name] = value
        state = {name: state[name] for name in shorter.state_dict()}
        shorter.load_state_dict(state, strict=True, assign=True)
        return shorter.train(self.training)

    def heads(self) -> Iterator[ImageConv]:
        """The convolutions that make the images."""
        for stage in self.stages:
            for output in stage.outputs:
                yield output.to_image if isinstance(output, SupervisedAttention) else output

    @torch.no_grad()
    def zero_outputs_(self) -> None:
        """Set the convolutions that make the images to zero: every output is then the input."""
        for head in self.heads():
            for parameter in head.parameters():
                parameter.zero_()


def check_image(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise MaximirError(f"the network takes images [N, 3, H, W], not {list(image.shape)}")
    if not image.is_floating_point():
        raise MaximirError(f"the network takes floating-point images in [0, 1], not {image.dtype}")
    h, w = image.shape[2:]
    if h == 0 or w == 0 or h % SIZE_MULTIPLE or w % SIZE_MULTIPLE:
        raise MaximirError(
            f"the network takes heights and widths that are multiples of {SIZE_MULTIPLE}, not {h} x {w}; "
            "maximir.Restorer takes any size"
        )
