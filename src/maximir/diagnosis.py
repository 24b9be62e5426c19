"""What a photograph needs: a small network of our own looks at parts of it and at a view of the whole.

It gives a probability for each damage that a task of ours mends, and none where it is not sure: a photograph
that needs nothing is left alone. Trained by scripts/train_diagnosis.py; docs/auto.md has its table of errors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

TASKS = {  # by damage, in the order in which they are mended
    "compression": "dejpeg",
    "noise": "denoise",
    "rain": "derain",
    "haze": "dehaze",
    "blur": "deblur",
    "darkness": "enhance",
}
DAMAGES = tuple(TASKS)
CROP = 96  # pixels: side of a part at full size
CROPS = 3  # parts along each axis
VIEW = 128  # pixels: side of the view of the whole, whatever its shape
BLOCK = 8  # parts begin on a JPEG's grid


class Views(NamedTuple):
    """What the network sees of pictures: `crops` [N, K, 96, 96, 3] and `view` [N, 128, 128, 3], uint8."""

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
    return np.stack(crops), np.asarray(view)


class Diagnosis(nn.Module):
    """`Views` → a logit for each of `DAMAGES`, `[N, 6]`."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.ModuleList(
            [
                nn.Conv2d(6, 24, 5, padding=2),
                nn.Conv2d(24, 32, 3, stride=2, padding=1),
                nn.Conv2d(32, 48, 3, stride=2, padding=1),
                nn.Conv2d(48, 64, 3, stride=2, padding=1),
            ]
        )
        self.whole = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((3, 16), (16, 32), (32, 48), (48, 64))
        )
        self.hidden = nn.Linear(4 * 64 + 64 + 6, 64)
        self.out = nn.Linear(64, len(DAMAGES))

    def forward(self, views: Views) -> Tensor:
        n, k = views.crops.shape[:2]
        crops = views.crops.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
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
