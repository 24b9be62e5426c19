"""Filters of pixels that strength, detail, masks and views of large photographs share."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from maximir.restoring.isolation import unaffected


@unaffected()
def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur `[h, w, c]` by a Gaussian of `sigma` pixels, over three of them; edges repeat. In float32."""
    reach = round(3 * sigma)
    gaussian = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / sigma).square())
    gaussian = gaussian / gaussian.sum()
    x = torch.from_numpy(image.astype(np.float32, copy=False)).permute(2, 0, 1)[:, None]
    for kernel, padding in (
        (gaussian[None, None, :, None], (0, 0, reach, reach)),
        (gaussian[None, None, None], (reach, reach, 0, 0)),
    ):
        x = F.conv2d(F.pad(x, padding, mode="replicate"), kernel)
    return x[:, 0].permute(1, 2, 0).numpy()


def between(pixels: slice, length: int, scaled: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return neighbours on an axis of `scaled` pixels, and the second one's share, for some of `length`."""
    at = (np.arange(pixels.start, pixels.stop) + 0.5) * scaled / length - 0.5
    at = at.clip(0, scaled - 1)
    first = at.astype(int)
    return first, np.minimum(first + 1, scaled - 1), (at - first).astype(np.float32)
