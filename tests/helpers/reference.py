"""Reproducible weights and images behind the golden outputs of the official code.

`golden/*.npz` hold what the official JAX code computes for them: every stage and scale, float32.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from maximir.models.official import PREFIX, table
from maximir.network.config import VARIANTS

GOLDEN = Path(__file__).with_name("golden")


def reference_array(key: str, shape: tuple[int, ...], salt: int = 0) -> np.ndarray:
    """Numbers by official name: kernels 0.5 N / sqrt(fan in), biases 0.1 N, gains 1 + 0.1 N."""
    normal = np.random.Generator(np.random.PCG64([salt, zlib.crc32(key.encode())])).standard_normal(shape)
    match key.rsplit("/", 1)[1]:
        case "kernel":
            normal *= 0.5 / np.sqrt(np.prod(shape[:-1]))
        case "bias":
            normal *= 0.1
        case "scale":
            normal = 1 + 0.1 * normal
    return normal.astype(np.float32)


def reference_weights(variant: str, salt: int = 0) -> dict[str, np.ndarray]:
    """All parameters of a variant, by official key without prefix."""
    entries = table(VARIANTS[variant]).values()
    return {entry.key: reference_array(entry.key, entry.shape, salt) for entry in entries}


def write_checkpoint(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """An official checkpoint file, with the optimiser's state that those carry."""
    np.savez(
        path, **{PREFIX + key: array for key, array in arrays.items()}, **{"opt/state/step": np.int64(7)}
    )
    return path


def reference_image(height: int, width: int, salt: int = 0) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1): waves and a little noise."""
    rng = np.random.Generator(np.random.PCG64([salt, height, width]))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [
        np.sin(y / (7 + 5 * c) + rng.uniform(0, 6)) * np.cos(x / (11 + 3 * c) + rng.uniform(0, 6))
        for c in range(3)
    ]
    noisy = 0.5 + 0.35 * np.stack(waves, -1) + 0.05 * rng.standard_normal((height, width, 3))
    return np.clip(noisy, 0, 0.999).astype(np.float32)
