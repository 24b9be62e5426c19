"""Training samples: crops of clean photographs, augmented and degraded on the fly.

Everything random about sample number i of a run comes from a generator seeded with (seed, i). So the
samples do not depend on the number of loader workers, and a resumed run sees exactly what an undisturbed
one would have seen, without any state to store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from maximir.errors import MaximirError
from maximir.pixels import UINT8, from_unit, to_unit

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def load_rgb(path: Path) -> np.ndarray:
    """An image file as uint8 [H, W, 3]. Pillow only, so that training needs nothing else.

    Raises:
        MaximirError: the file cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would clip it to 8 bits
                grey = from_unit(to_unit(np.asarray(upright).astype(np.uint16)), UINT8)
                return np.repeat(grey[..., None], 3, axis=-1)
            return np.asarray(upright.convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more for bad files
        raise MaximirError(f"{path}: cannot be read as an image ({error})") from error


def find_images(folders: Sequence[Path]) -> list[Path]:
    """All image files below the folders, sorted by path.

    Raises:
        MaximirError: a folder is missing, or there is no image.
    """
    for folder in folders:
        if not folder.is_dir():
            raise MaximirError(f"{folder}: no such folder of training images")
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise MaximirError(f"{', '.join(map(str, folders))}: no images ({', '.join(sorted(SUFFIXES))})")
    return paths


def load_photographs(
    folders: Sequence[Path], scales: Sequence[float], smallest: int, report: Callable[[str], None]
) -> list[np.ndarray]:
    """Decode all photographs into memory, each also shrunk by `scales` (sharper, cleaner detail).

    Images with a side below `smallest` are left out; unreadable ones are reported and left out.

    Raises:
        MaximirError: nothing is left.
    """
    photographs: list[np.ndarray] = []
    for path in find_images(folders):
        try:
            photograph = load_rgb(path)
        except MaximirError as error:
            report(f"skipped {error}")
            continue
        for scale in scales:
            h, w = (round(side * scale) for side in photograph.shape[:2])
            if min(h, w) < smallest:
                continue
            if scale == 1:
                photographs.append(photograph)
            else:
                smaller = Image.fromarray(photograph).resize((w, h), Image.Resampling.LANCZOS)
                photographs.append(np.asarray(smaller))
    if not photographs:
        raise MaximirError(
            f"{', '.join(map(str, folders))}: no readable image has both sides of at least {smallest} pixels"
        )
    return photographs


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the eight flips and quarter turns."""
    image = np.rot90(image, int(rng.integers(4)))
    return image[:, ::-1] if rng.integers(2) else image


class DegradedCrops(Dataset[tuple[Tensor, Tensor]]):
    """Sample (number, patch) → (degraded, clean), float32 `[3, patch, patch]`, the clean one in [0, 1]."""

    def __init__(self, photographs: list[np.ndarray], degrade: Degradation, seed: int) -> None:
        self.photographs = photographs
        self.degrade = degrade
        self.seed = seed
        areas = np.array([p.shape[0] * p.shape[1] for p in photographs], dtype=np.float64)
        self.cumulative = np.cumsum(areas / areas.sum())  # every pixel is equally likely

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor, Tensor]:
        number, patch = index
        rng = np.random.default_rng([self.seed, number])
        chosen = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.photographs) - 1)
        photograph = self.photographs[chosen]
        top = int(rng.integers(photograph.shape[0] - patch + 1))
        left = int(rng.integers(photograph.shape[1] - patch + 1))
        crop = augment(photograph[top : top + patch, left : left + patch], rng)
        clean = crop.astype(np.float32) / np.float32(255)
        degraded = self.degrade(clean, rng).astype(np.float32)
        return to_tensor(degraded), to_tensor(clean)


def to_tensor(image: np.ndarray) -> Tensor:
    """[H, W, 3] → [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class RunSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (sample number, patch) from step `start` on. `phase(step)` gives (batch, patch)."""

    def __init__(self, start: int, steps: int, phase: Callable[[int], tuple[int, int]]) -> None:
        self.start, self.steps, self.phase = start, steps, phase

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            batch, patch = self.phase(step)
            # Numbers are spaced by a fixed stride, so they never repeat when the batch size changes.
            yield [(step * 2**16 + k, patch) for k in range(batch)]

    def __len__(self) -> int:
        return self.steps - self.start
