"""MAXIM: a multi-stage, multi-scale UNet of multi-axis gated MLPs (paper, figure 2).

Levels count from the finest (0, full size, C channels) to the coarsest (2, a quarter, 4C channels).
Inside, maps are channels-last `[N, H, W, C]`; images at the border are `[N, 3, H, W]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maximir.errors import MaximirError, UsageError
from maximir.network.blocks import (
    ConvChannelAttention,
    CrossGating,
    DenseChannelAttention,
    MultiAxisGatedMlp,
    SupervisedAttention,
)
from maximir.network.config import BOTTLENECK_WINDOW, LEVELS, MaximConfig
from maximir.network.layers import Conv, Conv1x1, ConvTranspose, ImageConv, Modules, ScaleTo, subsample

FINE_TO_COARSE = tuple(range(LEVELS))
COARSE_TO_FINE = tuple(reversed(FINE_TO_COARSE))


class StageFeatures(NamedTuple):
    """Features that a stage hands to the next, by level."""

    gating: list[Tensor]  # sums of encoder and decoder features
    attended: list[Tensor]  # of the supervised attention modules


class Group(nn.Sequential):
    """A multi-axis gated MLP and a channel attention block."""

    recompute = False  # keep each layer's input only, and run the layer again for its gradients

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            recompute = self.recompute and torch.is_grad_enabled()
            x = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
        return x


def groups(
    config: MaximConfig,
    channels: int,
    window: int,
    attention: type[ConvChannelAttention] | type[DenseChannelAttention],
) -> nn.Sequential:
    return nn.Sequential(
        *(
            Group(MultiAxisGatedMlp(channels, window, config.dropout), attention(channels, config.reduction))
            for _ in range(config.groups)
        )
    )


class ShortcutBlock(nn.Module):
    """Project, then groups of MAB and channel attention with a long shortcut around them."""

    project: Conv1x1
    groups: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return x + self.groups(x)


class Bottleneck(ShortcutBlock):
    """Official `BottleneckBlock`."""

    def __init__(self, config: MaximConfig, channels: int) -> None:
        super().__init__()
        self.project = Conv1x1(channels, channels)
        self.groups = groups(config, channels, BOTTLENECK_WINDOW, DenseChannelAttention)


class EncoderDecoderBlock(ShortcutBlock):
    """The part that encoders and decoders share."""

    def __init__(self, config: MaximConfig, inputs: int, channels: int, window: int) -> None:
        super().__init__()
        self.project = Conv1x1(inputs, channels)
        self.groups = groups(config, channels, window, ConvChannelAttention)


class Encoder(nn.Module):
    """One level down. From the second stage on, gated with the stage before. Official `UNetEncoderBlock`."""

    def __init__(self, config: MaximConfig, level: int, *, first_stage: bool) -> None:
        super().__init__()
        channels, window = config.features << level, config.windows[level]
        inputs = channels if level == 0 else channels // 2
        self.block = EncoderDecoderBlock(config, inputs + channels, channels, window)
        self.gate = None if first_stage else CrossGating(channels, channels, window, config.dropout)
        self.down = Conv(channels, channels, 4, stride=2)

    def forward(self, x: Tensor, features: Tensor, gating: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map of the level above, features of the image, gating features of the stage before → skip, down."""
        x = self.block(torch.cat([x, features], dim=-1))
        if self.gate is not None:
            x, _ = self.gate(x, gating)
        return x, self.down(x)


class Decoder(nn.Module):
    """One level up. Official `UNetDecoderBlock`."""

    def __init__(self, config: MaximConfig, level: int) -> None:
        super().__init__()
        channels, window = config.features << level, config.windows[level]
        below = channels if level == LEVELS - 1 else 2 * channels
        self.up = ConvTranspose(below, channels)
        self.block = EncoderDecoderBlock(config, channels + LEVELS * channels, channels, window)

    def forward(self, x: Tensor, skips: Tensor) -> Tensor:
        return self.block(torch.cat([self.up(x), skips], dim=-1))


class MultiScaleFusion(nn.Module):
    """The maps of all levels, brought to one level's size and channels, concatenated in the given order."""

    def __init__(self, config: MaximConfig, level: int, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order
        self.scales = Modules(
            ScaleTo(config.features << source, config.features << level, 2.0 ** (source - level))
            for source in order
        )

    def forward(self, by_level: Sequence[Tensor]) -> Tensor:
        maps = [scale(by_level[source]) for source, scale in zip(self.order, self.scales, strict=True)]
        return torch.cat(maps, dim=-1)


class Stage(nn.Module):
    """One UNet: encoders, bottleneck, cross-gated multi-scale skips, decoders, an image at every scale."""

    def __init__(self, config: MaximConfig, *, first: bool, last: bool) -> None:
        super().__init__()
        channels = [config.features << level for level in FINE_TO_COARSE]
        coarsest = channels[-1]
        self.last = last
        self.input_convs = Modules(ImageConv(config.image_channels, c) for c in channels)
        self.input_gates: Modules[CrossGating] = Modules(
            ()
            if first
            else (CrossGating(c, c, w, config.dropout) for c, w in zip(channels, config.windows, strict=True))
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
                config.windows[level],
                config.dropout,
                upsample_from=channels[min(level + 1, LEVELS - 1)],
            )
            for level in FINE_TO_COARSE
        )
        self.skip_fusions = Modules(
            MultiScaleFusion(config, level, COARSE_TO_FINE) for level in FINE_TO_COARSE
        )
        self.decoders = Modules(Decoder(config, level) for level in FINE_TO_COARSE)
        output = ImageConv if last else SupervisedAttention
        self.outputs = Modules(output(c, config.image_channels) for c in channels)

    def forward(
        self, images: Sequence[Tensor], previous: StageFeatures | None
    ) -> tuple[list[Tensor], StageFeatures | None]:
        """Images and the previous stage's features → restored images, features for the next stage if any.

        Everything is by level, and figure 2 (a) from left to right.
        """
        features = [conv(image) for conv, image in zip(self.input_convs, images, strict=True)]
        if previous is not None:
            features = [
                gate(x, y)[0]
                for gate, x, y in zip(self.input_gates, features, previous.attended, strict=True)
            ]

        x, encoded = features[0], []
        for level, encoder in enumerate(self.encoders):
            skip, x = encoder(x, features[level], None if previous is None else previous.gating[level])
            encoded.append(skip)

        for bottleneck in self.bottlenecks:
            x = bottleneck(x)

        skips, global_feature = list(encoded), x
        for level in COARSE_TO_FINE:
            fused = self.encoder_fusions[level](encoded)
            skips[level], global_feature = self.skip_gates[level](fused, global_feature)

        decoded = list(skips)
        for level in COARSE_TO_FINE:
            x = decoded[level] = self.decoders[level](x, self.skip_fusions[level](skips))

        if self.last:
            outputs = zip(self.outputs, decoded, images, strict=True)
            return [image + output(x) for output, x, image in outputs], None
        pairs = [output(x, image) for output, x, image in zip(self.outputs, decoded, images, strict=True)]
        attended, restored = map(list, zip(*pairs, strict=True))
        gating = [x + y for x, y in zip(encoded, decoded, strict=True)]
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

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

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
        check_image(image, self.config, self.dtype)
        images = pyramid(image, self.config.unshuffle)
        outputs = []
        features = None
        for stage in self.stages:
            restored, features = stage(images, features)
            outputs.append(pictures(restored, self.config.unshuffle))
        return outputs

    def recompute(self, on: bool) -> None:
        """In training, compute blocks again for their gradients instead of keeping their inner maps."""
        for module in self.modules():
            if isinstance(module, Group):
                module.recompute = on

    def first_stages(self, count: int) -> Maxim:
        """Return the network that ends after `count` stages, with these weights (shared, not copied).

        Every stage is supervised (paper, section 3.3): its attention module makes a picture at every scale.
        The shorter network makes just that, so its `outputs[-1]` is `outputs[count - 1]` of this one.

        Raises:
            UsageError: fewer than one stage, or more than there are.
        """
        if not isinstance(count, int) or not 1 <= count <= self.config.stages:
            possible = f"1 to {self.config.stages}" if self.config.stages > 1 else "1"
            raise UsageError(f"stages must be {possible} for this model, not {count!r}")
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
        """Yield the convolutions that make the images."""
        for stage in self.stages:
            for output in stage.outputs:
                yield output.to_image if isinstance(output, SupervisedAttention) else output

    @torch.no_grad()
    def zero_outputs_(self) -> None:
        """Set the convolutions that make the images to zero: every output is then the input."""
        for head in self.heads():
            for parameter in head.parameters():
                parameter.zero_()


def pyramid(image: Tensor, unshuffle: int = 1) -> list[Tensor]:
    """Return the image `[N, 3, H, W]` at each level, channels-last. With `unshuffle` 2: of 2 x 2 pixels."""
    levels = (F.pixel_unshuffle(subsample(image, 2**level), unshuffle) for level in FINE_TO_COARSE)
    return [level.permute(0, 2, 3, 1) for level in levels]


def pictures(restored: Sequence[Tensor], unshuffle: int = 1) -> list[Tensor]:
    """Undo `pyramid`: what a stage makes of it by level → coarse to fine, `[N, 3, …]`."""
    return [F.pixel_shuffle(restored[level].permute(0, 3, 1, 2), unshuffle) for level in COARSE_TO_FINE]


def check_image(image: Tensor, config: MaximConfig, dtype: torch.dtype) -> None:
    """Refuse an image that a network of this shape with weights of this type cannot take.

    Raises:
        MaximirError: wrong shape or type.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise MaximirError(f"the network takes images [N, 3, H, W], not {list(image.shape)}")
    if not image.is_floating_point():
        raise MaximirError(f"the network takes floating-point images in [0, 1], not {image.dtype}")
    h, w = image.shape[2:]
    multiple = config.size_multiple
    if h == 0 or w == 0 or h % multiple or w % multiple:
        raise MaximirError(
            f"the network takes heights and widths that are multiples of {multiple}, not {h} x {w}; "
            "maximir.Restorer takes any size"
        )
    if image.dtype != dtype and not torch.is_autocast_enabled(image.device.type):
        raise MaximirError(f"the network has {dtype} weights, but the image is {image.dtype}: convert one")
