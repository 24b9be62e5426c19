"""Validation while training: held-out pairs, and clean images with the recipe's degradations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maximir.degradations import DEGRADATIONS, degrade_photograph
from maximir.engine.sweeps import Streaming
from maximir.errors import UsageError
from maximir.metrics import psnr
from maximir.network.model import Maxim
from maximir.pixels import UINT8, from_unit, in_8_bits, to_unit
from maximir.restoring.restorer import restore_batch
from maximir.training.data import Place, Scene, find_scenes
from maximir.training.recipe import AS_IS, EVEN, PAIRS, Recipe
from maximir.training.samples import to_tensor

SEED = 2022


@dataclass(frozen=True)
class Trial:
    """A degraded image (float32) and its clean original (uint8), [H, W, 3].

    Attributes:
        group: "pairs" or the degradation; scores are averaged per group.
    """

    group: str
    degraded: np.ndarray
    clean: np.ndarray


def make_trials(recipe: Recipe, held_out: Sequence[Scene], clean: Sequence[Place]) -> list[Trial]:
    """Make trials of the held-out pairs, and of the clean images with seeded degradations.

    Raises:
        MaximirError: there are clean images but no degradation for them.
    """
    trials = [
        Trial(PAIRS, to_unit(image.load()), in_8_bits(scene.target.load()))
        for scene in held_out
        for image in scene.inputs
    ]
    names = [
        name
        for name in recipe.validate_with or recipe.mixture
        if name not in (PAIRS, EVEN, AS_IS) and not DEGRADATIONS[name].needs_depth
    ]
    if clean and not names:
        raise UsageError(
            "--validation: name a degradation for these images, such as --set 'validate_with=[\"rain\"]'"
        )
    for number, scene in enumerate(find_scenes(clean)):
        image = scene.target.load()
        trials += [
            Trial(name, degrade_photograph(image, name, [SEED, number]), in_8_bits(image)) for name in names
        ]
    return trials


def validate(
    model: Maxim, trials: Sequence[Trial], features: torch.dtype, device: torch.device
) -> tuple[dict[str, float], np.ndarray]:
    """Measure a network's PSNR on the trials.

    Args:
        features: the network's dtype, bfloat16 or float32.

    Returns:
        `psnr_GROUP` for each group: the mean RGB PSNR in dB of the results in 8 bits (infinite values count
        only if all are infinite). And a picture with one row per group: degraded, restored, clean.
    """
    scores: dict[str, list[float]] = {}
    rows: list[np.ndarray] = []
    for trial in trials:
        image = to_tensor(trial.degraded)[None].to(device)
        output = restore_batch(model, image, Streaming(features=features))[0]
        restored = from_unit(output.permute(1, 2, 0).float().cpu().numpy(), UINT8)
        if trial.group not in scores:
            rows.append(np.concatenate([from_unit(trial.degraded, UINT8), restored, trial.clean], axis=1))
        scores.setdefault(trial.group, []).append(psnr(restored, trial.clean))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, [(0, 0), (0, width - row.shape[1]), (0, 0)]) for row in rows]
    means = {
        group: float(np.mean([x for x in all if np.isfinite(x)] or all)) for group, all in scores.items()
    }
    return {f"psnr_{group}": mean for group, mean in means.items()}, np.concatenate(rows)
