"""The noise of real cameras, seeded: photographs are converted to raw sensor data and developed again.

Papers usually add white Gaussian noise. In a photograph from a camera the noise depends on brightness, is
correlated between neighbours and channels by demosaicing, and is shaped by white balance, colour matrix and
tone curve. The conversion to raw and the relation of shot to read noise follow Brooks et al.,
"Unprocessing Images for Learned Raw Denoising", CVPR 2019, sections 3.1–3.3.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from maximir.degradations.files import as_file

SHOT_RANGE = (6e-5, 9e-3)  # Brooks: 1e-4 to 1.2e-2; DSLRs at low ISO lie below
# Camera RGB → linear sRGB: usual off-diagonal entries; each row sums to 1, which preserves grey.
COLOUR_MATRIX = np.array([[0, -0.55, -0.10], [-0.20, 0, -0.35], [0.02, -0.50, 0]])
COLOUR_SPREAD = 0.15 * (1 - np.eye(3))


def to_linear(encoded: np.ndarray) -> np.ndarray:
    """Convert sRGB-encoded values in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


def to_encoded(linear: np.ndarray) -> np.ndarray:
    """Convert linear light in [0, 1] to sRGB-encoded values: the inverse of `to_linear`."""
    bright = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, bright)


def add_contrast(values: np.ndarray, amount: float) -> np.ndarray:
    """Blend x with smoothstep, 3x² − 2x³, by `amount` in [0, 1]: the S shape of a camera's tone curve."""
    return values * (1 + amount * (values * (3 - 2 * values) - 1))


def remove_contrast(values: np.ndarray, amount: float) -> np.ndarray:
    """Invert `add_contrast` on [0, 1], for an amount above 0.

    With x = u + 1/2, the blend is the cubic (1 + a/2) u − 2a u³ + 1/2, and its middle root is a sine.
    """
    width = 2 * float(np.sqrt((1 + amount / 2) / (6 * amount)))
    sine = (values - 0.5) * (2 / (amount * width**3))
    return width * np.sin(np.arcsin(np.clip(sine, -1, 1)) / 3) + 0.5


def blur(values: np.ndarray, taps: tuple[float, ...]) -> np.ndarray:
    """Convolve the first two axes with an odd number of symmetric taps, edges mirrored.

    The mirror excludes the edge itself, which preserves the alternating colours of a Bayer row.
    """
    for axis in (0, 1):
        widths = [(len(taps) // 2 if a == axis else 0,) * 2 for a in range(values.ndim)]
        padded = np.pad(values, widths, mode="reflect")
        n = values.shape[axis]
        views = (padded[k : k + n] if axis == 0 else padded[:, k : k + n] for k in range(len(taps)))
        values = np.zeros_like(values)
        for tap, view in zip(taps, views, strict=True):
            values += tap * view
    return values


def demosaic(raw: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """Demosaic bilinearly: Bayer [H, W] → [H, W, 3]; `phase` is the (row, column) parity of red."""
    y, x = phase
    red, green, blue = np.zeros((3, *raw.shape), np.float32)
    red[y::2, x::2] = raw[y::2, x::2]
    blue[1 - y :: 2, 1 - x :: 2] = raw[1 - y :: 2, 1 - x :: 2]
    green[y::2, 1 - x :: 2] = raw[y::2, 1 - x :: 2]
    green[1 - y :: 2, x::2] = raw[1 - y :: 2, x::2]
    padded = np.pad(green, 1, mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    tent = (0.5, 1.0, 0.5)
    return np.stack([blur(red, tent), green + around / 4, blur(blue, tent)], axis=-1)


def mosaic(image: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """Sample [H, W, 3] as a Bayer sensor does: → [H, W]. `phase` is the (row, column) parity of red."""
    y, x = phase
    raw = image[..., 1].copy()
    raw[y::2, x::2] = image[y::2, x::2, 0]
    raw[1 - y :: 2, 1 - x :: 2] = image[1 - y :: 2, 1 - x :: 2, 2]
    return raw


def sensor_noise(raw: np.ndarray, shot: float, read: float, rng: np.random.Generator) -> np.ndarray:
    """Draw Poisson shot noise of variance shot · raw plus Gaussian read noise of variance `read`; zero mean.

    White is 1: noise above it is lost in a full pixel. Nothing is lost below black, since sensors store black
    well above zero.
    """
    light = np.maximum(raw, 0)
    photons = rng.poisson(light / shot) * shot - light
    noise = photons + np.sqrt(read) * rng.standard_normal(raw.shape, dtype=np.float32)
    return np.minimum(noise, np.maximum(1 - raw, 0)).astype(np.float32)


def chroma_blotches(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw smooth colour stains of 5–16 pixels, [H, W, 3], of unit deviation and without luma."""
    cell = rng.uniform(5, 16)
    coarse = [max(4, int(np.ceil(side / cell))) for side in shape]
    grid = rng.standard_normal((*coarse, 3), dtype=np.float32)
    grid -= grid.mean(axis=-1, keepdims=True)
    planes = [
        Image.fromarray(p).resize(shape[::-1], Image.Resampling.BICUBIC) for p in np.moveaxis(grid, -1, 0)
    ]
    stains = np.stack([np.asarray(p) for p in planes], axis=-1)
    return stains / stains.std()


def smooth_noise(noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a camera's noise reduction: slightly less fine luma noise, softer colour noise."""
    luma = noise.mean(axis=-1, keepdims=True)
    chroma = noise - luma
    side = rng.uniform(0.05, 0.25)
    luma = blur(luma, (side, 1 - 2 * side, side))
    chroma = blur(
        chroma, (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16) if rng.random() < 0.5 else (0.25, 0.5, 0.25)
    )
    return luma + chroma


def camera_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade a photograph as if taken by an unknown camera at an unknown ISO and saved as a file.

    Only the noise passes through the mosaic, so the picture itself keeps its sharpness.

    Args:
        image: float32 [H, W, 3] in [0, 1], sRGB-encoded.
    """
    contrast = rng.uniform(0.1, 1) if rng.random() < 0.5 else 0.0
    matrix = COLOUR_MATRIX + COLOUR_SPREAD * rng.uniform(-1, 1, (3, 3))
    matrix += np.diag(1 - matrix.sum(axis=1))
    develop = matrix * (rng.uniform(1.2, 2.6), 1, rng.uniform(1.2, 2.6))  # white balance, then colour
    shot = float(np.exp(rng.uniform(*np.log(SHOT_RANGE))))
    read = float(np.exp(2.18 * np.log(shot) + 1.20 + rng.normal(0, 0.26)))
    y, x = (int(n) for n in rng.integers(2, size=2))

    linear = to_linear(remove_contrast(image, contrast) if contrast else image)
    raw = mosaic(linear @ np.linalg.inv(develop).T.astype(np.float32), (y, x))
    noise = demosaic(sensor_noise(raw, shot, read, rng), (y, x)) @ develop.T.astype(np.float32)
    if rng.random() < 0.3:
        strength = rng.uniform(0.2, 0.7) * np.sqrt(shot * linear.mean(axis=-1, keepdims=True) + read)
        noise += strength.astype(np.float32) * chroma_blotches(image.shape[:2], rng)
    noisy = add_contrast(to_encoded(np.clip(linear + noise, 0, 1)), contrast)
    if rng.random() < 0.3:
        noisy = image + smooth_noise(noisy - image, rng)
    return as_file(noisy, rng, jpegs=0.5, qualities=(70, 98))
