"""The paper's training loss (appendix): Charbonnier + 0.1 L1 of the FFT, over all stages and scales.

And a term of colour, not in the paper: in the dark a cast costs little beside noise and brightness.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3
FREQUENCY_WEIGHT = 0.1
COLOUR_AREA = 8  # side of the squares whose mean colours are compared


def charbonnier(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(difference^2 + epsilon^2)."""
    return ((restored - target).square() + CHARBONNIER_EPSILON**2).sqrt().mean()


def frequency_l1(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean modulus of the difference's 2-D Fourier transform over the last two axes.

    The transform is orthonormal, so that the term does not grow with the crop.
    """
    return torch.fft.rfft2(restored - target, norm="ortho").abs().mean()


def colour_l1(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of small areas' mean colours, less what the channels share."""
    difference = restored - target
    difference = F.avg_pool2d(difference, min(COLOUR_AREA, *difference.shape[-2:]))
    return (difference - difference.mean(dim=1, keepdim=True)).abs().mean()


def restoration_loss(outputs: list[list[Tensor]], target: Tensor, colour: float = 0.0) -> Tensor:
    """Return the loss summed over stages and scales, in float32; the target is resized to each scale.

    Args:
        outputs: `outputs[stage][scale]`, coarse to fine, as `Maxim` returns them.
        target: `[N, 3, H, W]` in [0, 1].
        colour: weight of the colour term.
    """
    scales = [
        target if size == target.shape[-2:] else F.interpolate(target, size, mode="nearest-exact")
        for size in (output.shape[-2:] for output in outputs[0])
    ]
    total = target.new_zeros(())
    for stage in outputs:
        for restored, reference in zip(stage, scales, strict=True):
            restored = restored.float()
            total = total + charbonnier(restored, reference)
            total = total + FREQUENCY_WEIGHT * frequency_l1(restored, reference)
            if colour:
                total = total + colour * colour_l1(restored, reference)
    return total
