"""Diagnosis of a photograph: a small network of our own looks at parts of it and at a view of the whole.

It gives a probability for each damage that a task of ours mends. Not sure means doing less, and a photograph
that needs nothing is left alone. Trained by scripts/train_diagnosis.py; docs/auto.md has its table of errors.
Compression is measured instead, by the steps between the blocks of JPEGs: the network hardly sees it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from maximir.pixels import in_8_bits

WEIGHTS = Path(__file__).parents[1] / "models" / "box" / "diagnosis.safetensors"
DAMAGES = ("compression", "noise", "rain", "haze", "blur", "darkness")  # that the network knows
TASKS = {  # by damage, in the order in which they are mended: what happened last is undone first
    "compression": "dejpeg",
    "noise": "denoise",
    "rain": "derain",
    "haze": "dehaze",
    "blur": "deblur",
    "darkness": "enhance",
}
NAMES = {damage: damage for damage in DAMAGES} | {"blur": "motion blur", "darkness": "low light"}
SURE = {  # less probable damage is left alone: about a hundredth of the pictures without it (docs/auto.md)
    "compression": 0.4,  # a blockiness of 0.12
    "noise": 0.95,  # the grain of film and of fine texture is seen as a little noise
    "rain": 0.6,
    "haze": 0.9,
    "blur": 0.7,
    "darkness": 0.75,
}
CROP = 96  # pixels: side of a part at full size
CROPS = 3  # parts along each axis
VIEW = 128  # pixels: side of the view of the whole, whatever its shape
BLOCK = 8  # parts begin on a JPEG's grid
CERTAIN = 0.3  # blockiness of a photograph that was surely compressed
LARGEST_STEP = 6.0  # levels: larger ones are edges of things
LARGEST_DIFFERENCE = 12.0  # levels
LEVELS = 2.5  # of a smooth picture: its faint steps are no blocks
MIDDLE = 1024  # pixels: side of the part that is looked at for blocks


class Views(NamedTuple):
    """Input of the network, of N pictures: `crops` [N, K, 96, 96, 3] and `view` [N, 128, 128, 3], uint8."""

    crops: Tensor
    view: Tensor


def views_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return crops `[9, 96, 96, 3]` and the view `[128, 128, 3]` of a picture, uint8 `[H, W, 3]`."""
    view = Image.fromarray(image).resize((VIEW, VIEW), Image.Resampling.BOX)
    short = [(0, max(0, CROP - side)) for side in image.shape[:2]]
    if short[0][1] or short[1][1]:
        image = np.pad(image, (*short, (0, 0)), mode="symmetric")
    tops, lefts = (
        [round(i * (side - CROP) / (CROPS - 1)) // BLOCK * BLOCK for i in range(CROPS)]
        for side in image.shape[:2]
    )
    crops = [image[top : top + CROP, left : left + CROP] for top in tops for left in lefts]
    return np.stack(crops), np.array(view)


class Diagnosis(nn.Module):
    """`Views` → a logit for each of `DAMAGES`, `[N, 6]`."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.ModuleList(
            [
                nn.Conv2d(6, 32, 5, stride=2, padding=2),
                nn.Conv2d(32, 48, 3, stride=2, padding=1),
                nn.Conv2d(48, 64, 3, stride=2, padding=1),
                nn.Conv2d(64, 64, 3, padding=1),
            ]
        )
        self.whole = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((3, 16), (16, 32), (32, 48), (48, 64))
        )
        self.hidden = nn.Linear(4 * 64 + 64 + 6, 64)
        self.out = nn.Linear(64, len(DAMAGES))

    def forward(self, views: Views) -> Tensor:
        n, k = views.crops.shape[:2]
        crops = views.crops.flatten(0, 1).permute(0, 3, 1, 2).contiguous().float() / 255
        fine = crops - F.avg_pool2d(crops, 3, stride=1, padding=1, count_include_pad=False)
        x = torch.cat([crops - 0.5, 10 * fine], dim=1)
        for layer in self.detail:
            x = F.relu(layer(x))
        x = torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1).view(n, k, -1)
        x = torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=1)
        view = views.view.permute(0, 3, 1, 2).float() / 255
        y = view - 0.5
        for layer in self.whole:
            y = F.relu(layer(y))
        light = torch.cat([view.mean(dim=(2, 3)), view.std(dim=(2, 3))], dim=1)
        return self.out(F.relu(self.hidden(torch.cat([x, y.mean(dim=(2, 3)), light], dim=1))))


@torch.inference_mode()
def probabilities(model: Diagnosis, views: Views) -> Tensor:
    """Return the probability of each damage, `[N, 6]`."""
    return torch.sigmoid(model(views))


class Finding(NamedTuple):
    """A damage that a photograph has, and how strongly to mend it: 0.5 if it is barely sure … 1."""

    damage: str
    strength: float


def diagnose(image: np.ndarray) -> list[Finding]:
    """Return the damage of an image `[H, W, 3]` of any type, the surest first; none if it needs nothing."""
    image = in_8_bits(image)
    crops, view = views_of(image)
    found = probabilities(network(), Views(torch.from_numpy(crops)[None], torch.from_numpy(view)[None]))[0]
    known = dict(zip(DAMAGES, found.tolist(), strict=True))
    known["compression"] = min(1.0, blockiness(image) / CERTAIN)
    sure = [(p, damage) for damage, p in known.items() if p > SURE[damage]]
    return [
        Finding(damage, round(0.5 + 0.5 * (p - SURE[damage]) / (1 - SURE[damage]), 1))
        for p, damage in sorted(sure, reverse=True)
    ]


def blockiness(image: np.ndarray) -> float:
    """Return how much larger steps of brightness are at every eighth pixel than between, relative to all.

    Takes `[H, W, 3]`, uint8. About 0 for photographs that were never compressed, 0.1 for JPEGs of quality
    50, 0.3 for 20 and below; the smaller value of both directions. The blocks may begin anywhere.
    """
    top, left = (max(0, (length - MIDDLE) // 2) for length in image.shape[:2])
    part = image[top : top + MIDDLE, left : left + MIDDLE].astype(np.float32)
    grey = part @ np.array([0.299, 0.587, 0.114], np.float32)
    return min(steps_between_blocks(grey), steps_between_blocks(grey.T))


def steps_between_blocks(grey: np.ndarray) -> float:
    """Return `blockiness` along the rows of `[h, w]`, values 0 to 255."""
    steps = np.abs(np.diff(grey, axis=1))
    beyond = np.clip(steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2, -LARGEST_STEP, LARGEST_STEP)
    blocks = beyond.shape[1] // BLOCK
    if blocks < CROPS:
        return 0.0  # too few to tell
    columns = beyond[:, : blocks * BLOCK].mean(axis=0).reshape(blocks, BLOCK)
    *others, largest = np.sort(columns.mean(axis=0))
    return float((largest - np.median(others)) / (steps.clip(max=LARGEST_DIFFERENCE).mean() + LEVELS))


@functools.cache
def network() -> Diagnosis:
    with torch.device("meta"):
        model = Diagnosis().eval()
    state = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    model.load_state_dict(state, assign=True)
    return model
