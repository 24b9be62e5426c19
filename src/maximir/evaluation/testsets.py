"""Degradations of whole test images, as in the field's tables; deterministic for each image."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from maximir import images
from maximir.degradations import DEGRADATIONS, degrade_photograph
from maximir.degradations.blur import convolve
from maximir.degradations.files import compress, quantise
from maximir.degradations.noise import gaussian_noise
from maximir.errors import MaximirError, UsageError
from maximir.pixels import to_unit

BLUR_NOISE = 2.55  # sigma on the scale of 0-255: 1 %
FORMS = "gaussian:SIGMA, gaussian:SIGMA:file, kernel:FILE, jpeg:QUALITY"

Degrade = Callable[[np.ndarray, str], np.ndarray]  # clean uint8 [H, W, 3] and its name → float32 [0, 1]


def degradation(text: str) -> Degrade:
    """Return the degradation that `--degrade` names.

    - `gaussian:25`: noise of sigma 25 on the scale of 0-255, float and not clipped, drawn anew for each image
      from `numpy.random.RandomState(0)`, as in KAIR and Restormer. `gaussian:25:file`: the same, clipped and
      rounded to 8 bits.
    - `kernel:FILE`: blur with the kernel in a grey picture, mirrored borders, 1 % noise, 8 bits.
    - `jpeg:10`: saved as JPEG of quality 10 with half the chroma's resolution, by libjpeg.
    - a name of `maximir.degradations`.

    Raises:
        UsageError: none of these.
        MaximirError: the kernel's file cannot be read.
    """
    kind, _, argument = text.partition(":")
    if kind == "gaussian" and argument:
        number, _, form = argument.partition(":")
        try:
            sigma = float(number)
        except ValueError:
            sigma = -1.0
        if not 0 <= sigma <= 255 or form not in ("", "file"):
            raise UsageError(
                f"--degrade {text}: must be gaussian:SIGMA or gaussian:SIGMA:file, e.g. gaussian:25"
            )
        return lambda clean, name: noisy(clean, sigma, as_file=form == "file")
    if kind == "kernel" and argument:
        kernel = load_kernel(Path(argument))
        return lambda clean, name: blurred(clean, kernel, seed_of(name))
    if kind == "jpeg" and argument:
        quality = int(argument) if argument.isascii() and argument.isdigit() else 0
        if not 1 <= quality <= 100:
            raise UsageError(f"--degrade {text}: must be jpeg:QUALITY, 1 to 100, e.g. jpeg:10")
        return lambda clean, name: compress(to_unit(clean), "JPEG", quality, subsample=True)
    if text in DEGRADATIONS and not DEGRADATIONS[text].needs_depth:
        return lambda clean, name: degrade_photograph(clean, text, [seed_of(name)])
    names = ", ".join(name for name, each in DEGRADATIONS.items() if not each.needs_depth)
    raise UsageError(f"--degrade {text}: unknown; choose from {FORMS}, {names}")


def seed_of(name: str) -> int:
    """Derive the seed from the image's name, so that it does not depend on other images."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


def noisy(clean: np.ndarray, sigma: float, *, as_file: bool) -> np.ndarray:
    noise = np.random.RandomState(0).normal(0, sigma / 255, clean.shape)
    image = (to_unit(clean) + noise).astype(np.float32)
    return quantise(image) if as_file else image


def load_kernel(path: Path) -> np.ndarray:
    """Load a kernel from a grey picture: float32 [h, w], both odd, with sum 1.

    Raises:
        MaximirError: the file cannot be read, or the kernel is even or black.
    """
    try:
        kernel = images.read(path).rgb[..., 0].astype(np.float32)
    except MaximirError as error:
        raise MaximirError(f"{path}: {error}") from error
    h, w = kernel.shape
    if h % 2 == 0 or w % 2 == 0 or kernel.sum() == 0:
        raise MaximirError(f"{path}: a kernel has odd sides and is not black; this one is {w} x {h}")
    return kernel / kernel.sum()


def blurred(clean: np.ndarray, kernel: np.ndarray, seed: int) -> np.ndarray:
    """Blur with the kernel as it is. A centre of mass off the centre also shifts the picture, which no blind
    model can know; Levin's third and fourth kernels shift it by 1.2 and 2.7 pixels.
    """
    (y, x), (h, w) = (side // 2 for side in kernel.shape), clean.shape[:2]
    padded = np.pad(to_unit(clean), [(y, y), (x, x), (0, 0)], mode="reflect")
    image = convolve(padded, kernel)[y : y + h, x : x + w]
    return quantise(gaussian_noise(image, BLUR_NOISE, np.random.default_rng(seed)))
