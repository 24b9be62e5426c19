"""Haze: I = J·t + A·(1 − t) with t = exp(−β·d), on encoded values as in RESIDE and similar sets.

J is the clean image, A the airlight, d the depth, t the transmission. The depth is measured. Without a
measurement it is synthetic: training sees crops, in which depth mostly varies slowly.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from maximir.degradations.files import as_file

TRANSMISSION = (0.1, 0.95)  # range of its mean over an image
NEAREST = 0.05  # in units of the mean depth: measured depth may hold zeros where it is unknown


def smooth_field(shape: tuple[int, int], rng: np.random.Generator, cells: int) -> np.ndarray:
    """Interpolate random values of about unit variance on cells × cells knots: float32 [H, W]."""
    knots = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(knots.resize(shape[::-1], Image.Resampling.BICUBIC))


def ground_depth(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw a depth, far at the top and near at the bottom: float32 [H, W], for any part of a picture."""
    height, width = shape
    part = rng.uniform(0.2, 1)  # share of the picture's height that the crop covers
    tilt = rng.normal(0, 0.15)
    y = np.linspace(0, part, height)[:, None] + rng.uniform(0, 1 - part)
    y = y + tilt * part * np.linspace(-0.5, 0.5, width)
    if rng.random() < 0.5:
        return (1.3 - np.clip(y, 0, 1)).astype(np.float32)
    # Level ground seen from above: the distance is inverse to the angle below the horizon. The limit stands
    # for everything above the horizon: hills, houses and the sky.
    below = y - rng.uniform(-0.2, 0.5)
    return (1 / np.maximum(below, rng.uniform(0.08, 0.3))).astype(np.float32)


def step_depth(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a few depths with steps at edges of the image: float32 [H, W] for an image [H, W, 3].

    Levels of the blurred brightness stand in for objects, which differ in brightness. The bright ones are
    often the farthest, like the sky.
    """
    height, width = image.shape[:2]
    shrink = int(rng.integers(2, 6))
    small = (max(width // shrink, 1), max(height // shrink, 1))
    coarse = Image.fromarray(image.mean(axis=-1)).resize(small, Image.Resampling.BOX)
    grey = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    count = int(rng.integers(2, 5))
    limits = np.quantile(grey[::4, ::4], np.sort(rng.uniform(0, 1, count)))
    limits = np.maximum.accumulate(limits + np.float32(0.08) * np.arange(count))  # no step in a smooth sky
    depths = np.exp(rng.uniform(-0.9, 0.9, count))
    if rng.random() < 0.75:
        depths.sort()
    return np.interp(grey, limits, depths).astype(np.float32)


def made_up_depth(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a plausible depth for an outdoor photograph: float32 [H, W], positive, of any unit."""
    shape = image.shape[:2]
    kind = rng.choice(["constant", "ground", "smooth", "steps", "both"], p=[0.25, 0.35, 0.1, 0.15, 0.15])
    depth = ground_depth(shape, rng) if kind in ("ground", "both") else np.ones(shape, np.float32)
    if kind in ("steps", "both"):
        depth = depth * step_depth(image, rng)
    if kind == "smooth":
        depth = np.exp(0.4 * smooth_field(shape, rng, int(rng.integers(2, 4))))
    return depth


def scatter(image: np.ndarray, transmission: np.ndarray, airlight: np.ndarray) -> np.ndarray:
    """Return J·t + A·(1 − t): image [H, W, 3], transmission [H, W], airlight [3]."""
    t = transmission[..., None]
    return image * t + airlight * (1 - t)


def random_airlight(rng: np.random.Generator) -> np.ndarray:
    """Draw an airlight, mostly neutral light grey, sometimes bluish or yellowish: float32 [3] in [0.7, 1]."""
    grey = rng.uniform(0.7, 1)
    tint = rng.uniform(-0.05, 0.05) if rng.random() < 0.3 else 0
    return np.clip(grey + tint * np.array([1, 0.3, -1]), 0.7, 1).astype(np.float32)


def random_transmission(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw exp(−β·d), float32 [H, W], for a depth in units of its mean; t at the mean depth is uniform.

    For RESIDE's indoor scenes this gives about β = 0.05 to 2.5 in their units; their own are 0.6 to 1.8.
    """
    relative = np.maximum(depth, NEAREST)
    if rng.random() < 0.15:  # real haze is not even
        relative = relative * np.exp(0.35 * smooth_field(depth.shape, rng, int(rng.integers(2, 5))))
    return np.exp(np.log(rng.uniform(*TRANSMISSION)) * relative).astype(np.float32)


def haze(image: np.ndarray, rng: np.random.Generator, depth: np.ndarray | None = None) -> np.ndarray:
    """Add haze and save as a file: float32 [H, W, 3] in [0, 1], sRGB-encoded, in and out.

    Args:
        depth: measured, float32 [H, W], in units of the mean of the scene, of which the image may be a crop;
            None: synthetic.
    """
    if depth is None:
        depth = made_up_depth(image, rng)
        depth, airlight = depth / depth.mean(), random_airlight(rng)
    else:
        # Measured depths are of rooms, where RESIDE's airlight is mostly white. With another airlight,
        # windows, which are holes in its depth maps, would become grey patches.
        airlight = np.ones(3, np.float32) if rng.random() < 0.5 else random_airlight(rng)
    return as_file(scatter(image, random_transmission(depth, rng), airlight), rng)
