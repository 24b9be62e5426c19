"""Darkness: a photograph as if taken with too little light.

In linear light: less exposure, a tone curve, a colour cast, a wrong black level, shot and read noise. The
result is encoded and rounded to the few remaining levels. The numbers are fits to three kinds of pairs
(logarithm of the dark image over logarithm of the bright one; noise from differences of neighbours):
- LOL: dark = a·bright^c on encoded values, a = 0.18 to 0.37, c = 1.5 to 2.1; deviation of the noise
  1 to 2 levels of 255, most in red, least in green, hardly correlated;
- ELIEI: a = 0.03 to 0.13 and c about 1 in green; red and blue never fall below 4 to 6 levels, which
  looks magenta once brightened; noise of neighbours correlated by about 0.3;
- FiveK: only underexposed and flat or contrasty, with little noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maximir.degradations.files import as_file

GAMMA = 2.2  # of the encoding; the power law is close enough for a model of darkness

Range = tuple[float, float]


@dataclass(frozen=True)
class Darkness:
    """Ranges of random parameters; light is linear, with 1 = white of the clean image."""

    exposure: Range  # factors, evenly in the logarithm
    contrast: Range  # exponents
    shot: Range  # variance of the noise per unit of light, evenly in the logarithm
    read: Range  # standard deviation of the noise in the dark
    black: Range  # light of red and blue in the dark; green has up to a third of it
    cast: float  # standard deviation of the logarithm of the gains of red and blue
    share: float  # fraction of the images


KINDS = (
    Darkness((1 / 5, 1 / 1.2), (0.8, 1.4), (1e-6, 5e-5), (0, 1e-4), (0, 0), 0.06, 0.35),  # FiveK
    Darkness((1 / 45, 1 / 6), (1.2, 2.1), (3e-5, 3e-4), (1e-5, 1e-4), (0, 5e-5), 0.08, 0.4),  # LOL
    Darkness((1 / 1200, 1 / 60), (0.9, 1.2), (2e-5, 1e-4), (1e-5, 6e-5), (0, 2.5e-4), 0.35, 0.25),  # ELIEI
)
SHARES = np.array([kind.share for kind in KINDS])


def log_uniform(bounds: Range, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def correlated(noise: np.ndarray, side: float) -> np.ndarray:
    """Mix neighbours of noise [H, W, 3] by the weights (side, 1, side), keeping its unit variance."""
    for axis in (0, 1):
        noise = noise + np.float32(side) * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    return noise / np.float32(1 + 2 * side**2)


def sensor_noise(
    light: np.ndarray, shot: float, read: float, gains: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw Gaussian shot and read noise for linear light [H, W, 3]; `gains` [3] multiply its deviation."""
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    if rng.random() < 0.5:  # demosaicing and the camera's own denoising spread it
        noise = correlated(noise, rng.uniform(0.1, 0.35))
    return noise * gains * np.sqrt(np.float32(shot) * light + np.float32(read) ** 2)


def low_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken a photograph and save as a file: float32 [H, W, 3] in [0, 1], sRGB-encoded, in and out."""
    kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
    contrast = rng.uniform(*kind.contrast)
    gains = np.exp(kind.cast * rng.standard_normal(3)).astype(np.float32)
    gains /= gains[1]  # keep green
    black = rng.uniform(*kind.black) * np.array([1, rng.uniform(0, 0.3), rng.uniform(0.7, 1.1)], np.float32)
    # The exponent is for encoded values, and (x^2.2)^c = (x^c)^2.2: one power does both.
    light = np.maximum(image, 0) ** np.float32(GAMMA * contrast)
    light = light * (np.float32(log_uniform(kind.exposure, rng)) * gains) + black.astype(np.float32)
    # White balance amplifies red and blue, and their noise.
    noise_gains = np.array([rng.uniform(1.2, 2), 1, rng.uniform(1, 1.7)], np.float32)
    light += sensor_noise(light, log_uniform(kind.shot, rng), rng.uniform(*kind.read), noise_gains, rng)
    return as_file(np.maximum(light, 0) ** np.float32(1 / GAMMA), rng)
