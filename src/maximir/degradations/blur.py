"""Blur from a shaken or panned camera, seeded: movement during the exposure, then noise and a file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from maximir.degradations.camera import to_encoded, to_linear
from maximir.degradations.files import as_file

KERNEL_SIZE = 33  # pixels; a path of 27 still fits when its centre of mass lies near one end
MARGIN = KERNEL_SIZE // 2  # pixels that a crop needs around it
SHORTEST, LONGEST = 2.0, 22.0  # longer side of a path in pixels; splatting and softening add about two
MOMENTS = 400  # samples of the exposure


def wander(rng: np.random.Generator, roughness: int) -> np.ndarray:
    """Draw a smooth random curve over the exposure, [MOMENTS], of about unit deviation.

    Args:
        roughness: number of half-waves, each weaker than the one before.
    """
    waves = np.arange(1, roughness + 1)
    time = np.linspace(0, np.pi, MOMENTS)
    weights = rng.standard_normal(roughness) / waves
    phases = rng.uniform(0, 2 * np.pi, roughness)
    return np.cos(waves * time[:, None] + phases) @ weights * np.sqrt(2 / (1 / waves**2).sum())


def hand_path(rng: np.random.Generator, longest: float = LONGEST) -> np.ndarray:
    """Draw the path of a point's image on the sensor: complex [MOMENTS], in pixels, mean 0.

    The hand has inertia: heading and speed change smoothly, except for a few jerks that turn the heading
    at once. It is slowest around a jerk and may rest anywhere, which leaves the bright spots of a kernel.
    """
    time = np.linspace(0, 1, MOMENTS)
    heading = rng.uniform(0, 2 * np.pi) + rng.choice([0.2, 0.7, 1.4]) * wander(rng, 4)
    speed = np.exp(rng.uniform(0.3, 1.3) * wander(rng, 12))
    for moment in rng.random(rng.choice(4, p=[0.25, 0.3, 0.25, 0.2])):
        heading += rng.uniform(0.5, np.pi) * rng.choice([-1, 1]) * (time > moment)
        rest = rng.uniform(0.6, 1.0) * np.exp(-(((time - moment) / rng.uniform(0.02, 0.1)) ** 2))
        speed *= 1 - rest
    path = np.cumsum(speed * np.exp(1j * heading))
    tremor = rng.uniform(0, 0.3) * (wander(rng, 24) + 1j * wander(rng, 24))  # pixels
    extent = rng.uniform(SHORTEST, longest)
    path = path * (extent / max(np.ptp(path.real), np.ptp(path.imag))) + tremor
    return path - path.mean()


def straight_path(rng: np.random.Generator, longest: float = LONGEST, bend: float = 0.15) -> np.ndarray:
    """Draw a nearly straight path of even speed: a camera that pans, or a car that passes.

    Args:
        bend: standard deviation of the turn from the middle to either end, in radians.
    """
    time = np.linspace(-1, 1, MOMENTS)
    heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, bend) * time
    path = np.cumsum(np.exp(0.2 * wander(rng, 4) + 1j * heading))
    path *= rng.uniform(SHORTEST, longest) / np.abs(path[-1] - path[0])
    return path - path.mean()


def frames_path(rng: np.random.Generator, longest: float = LONGEST) -> np.ndarray:
    """Draw the path of 7 to 13 averaged frames of a fast video, as for the GoPro set (Nah et al. 2017).

    In so short a time a hand neither turns back nor trembles: the path is bent, its speed even. Each frame is
    exposed for part of its time; where that is short, the path is a row of dashes.
    """
    frames, open_for = rng.integers(7, 14), rng.uniform(0.2, 1.0)
    path = straight_path(rng, longest, bend=0.5)
    path = path[np.linspace(0, frames, MOMENTS, endpoint=False) % 1 < open_for]
    return path - path.mean()


def rasterise(path: np.ndarray, size: int, softness: float) -> np.ndarray:
    """Draw a path as a kernel: float32 [size, size], non-negative, sum 1, centre of mass in the centre.

    Centring keeps coarse structures in place, since a blurred picture does not tell how far it was shifted.

    Args:
        path: complex positions in pixels relative to the centre; mean 0; shrunk if they do not fit.
        size: odd.
        softness: sigma of the Gaussian around each position, in pixels.
    """
    radius = size // 2
    reach = max(np.abs(path.real).max(), np.abs(path.imag).max())
    path = path * min(1.0, (radius - 1) / max(reach, 1e-6)) + radius * (1 + 1j)
    row, column = np.floor(path.imag).astype(int), np.floor(path.real).astype(int)
    down, right = path.imag - row, path.real - column
    kernel = np.zeros((size, size))
    for dy, dx in np.ndindex(2, 2):  # bilinear: a position lights the four pixels around it
        share = np.abs(1 - dy - down) * np.abs(1 - dx - right)
        np.add.at(kernel, (row + dy, column + dx), share)
    offsets = np.subtract.outer(np.arange(size), np.arange(size))
    gaussian = np.exp(-0.5 * (offsets / max(softness, 1e-3)) ** 2)
    kernel = gaussian @ kernel @ gaussian.T
    return (kernel / kernel.sum()).astype(np.float32)


def random_softness(rng: np.random.Generator) -> float:
    """Draw the sigma of lens and sensor in pixels; occasionally the picture is also slightly out of focus."""
    return float(rng.uniform(0.6, 1.2) if rng.random() < 0.15 else rng.uniform(0.2, 0.6))


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve [H, W, 3] periodically with an odd kernel no larger than the image."""
    h, w = image.shape[:2]
    wide = np.zeros((h, w), np.float32)
    wide[: kernel.shape[0], : kernel.shape[1]] = kernel
    wide = np.roll(wide, (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), axis=(0, 1))
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    blurred = np.fft.irfft2(np.fft.rfft2(planes) * np.fft.rfft2(wide), s=(h, w))
    return np.ascontiguousarray(blurred.transpose(1, 2, 0), dtype=np.float32)


def soft_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw a mask [H, W, 1] in (0, 1): one side of a random line, or a disc, with a smooth border."""
    h, w = shape
    y, x = np.mgrid[-0.5 : 0.5 : h * 1j, -0.5 : 0.5 : w * 1j] - rng.uniform(-0.3, 0.3, (2, 1, 1))
    angle = rng.uniform(0, 2 * np.pi)
    line = y * np.sin(angle) + x * np.cos(angle)
    distance = line if rng.random() < 0.5 else rng.uniform(0.2, 0.4) - np.hypot(y, x)
    return (1 / (1 + np.exp(-distance / rng.uniform(0.03, 0.2))))[..., None].astype(np.float32)


def shake(image: np.ndarray, rng: np.random.Generator, path: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Blur along a path, or rarely along two related paths in different parts of the image.

    A rolling camera, or a moving object, turns and stretches the path from place to place.
    """
    softness *= random_softness(rng)
    blurred = convolve(image, rasterise(path, KERNEL_SIZE, softness))
    if rng.random() < 0.15:
        related = path * rng.uniform(0.5, 1.1) * np.exp(1j * rng.normal(0, 0.3))
        mask = soft_mask(image.shape[:2], rng)
        blurred += mask * (convolve(image, rasterise(related, KERNEL_SIZE, softness)) - blurred)
    return blurred


def motion_blur(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    kind: Callable[[np.random.Generator, float], np.ndarray] = hand_path,
    longest: float = LONGEST,
    linear: float = 0.25,
    noise: float = 1.0,
    softness: float = 1.0,
) -> np.ndarray:
    """Add camera shake, then noise of 0–3 %, then possibly save as a file.

    Some images are blurred in linear light as in a camera, the others in encoded values as in the field's
    test sets (Levin et al. 2009 and its successors). One image in twenty stays sharp, so that the network
    learns to leave such images alone.

    Args:
        image: float32 [H, W, 3] in [0, 1], sRGB-encoded, both sides at least `KERNEL_SIZE`. The outer
            `MARGIN` pixels are blurred as if the image were periodic: cut them off.
        kind: function that draws paths.
        longest: longest side of a path, in pixels.
        linear: share of images that are blurred in linear light.
        noise: amount of noise, and of JPEGs among the files, relative to the above.
        softness: of lens and sensor, relative to `random_softness`.
    """
    if rng.random() < 0.05:
        blurred = image
    elif rng.random() < linear:
        blurred = to_encoded(np.clip(shake(to_linear(image), rng, kind(rng, longest), softness), 0, 1))
    else:
        blurred = shake(image, rng, kind(rng, longest), softness)
    sigma = rng.uniform(0.005, 0.015) if rng.random() < 0.5 else rng.uniform(0, 0.03)
    noisy = blurred + np.float32(noise * sigma) * rng.standard_normal(image.shape, dtype=np.float32)
    return as_file(noisy, rng, jpegs=0.3 * noise) if rng.random() < 0.6 else noisy
