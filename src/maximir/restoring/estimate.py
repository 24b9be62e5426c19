"""Time and memory of an image, estimated before it is restored: `maximir info --size`."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from maximir.errors import UsageError
from maximir.restoring import memory, views, windows
from maximir.restoring.base import ImageRestorer
from maximir.restoring.chain import Chain
from maximir.restoring.memory import padded_pixels, plan
from maximir.restoring.restorer import Restorer, memory_errors_name

SAMPLES = (64, 256, 512)  # sides of the images that are timed; the first one warms up
LONG_SAMPLE = 1.0  # seconds; a larger sample would not be better


class Estimate(NamedTuple):
    """Bytes that an image will take, and seconds, estimated from a `sample`."""

    peak: int
    scratch: int
    least: int
    seconds: float
    sample: str


def estimate(restorer: ImageRestorer, height: int, width: int) -> Estimate:
    """Estimate what `restorer` needs for an 8-bit image of this size, in a few seconds: it restores a sample.

    The links of a chain run one after the other: the largest one sets the memory.

    Raises:
        MaximirError: the image needs more memory than allowed.
        UsageError: what it needs depends on the photograph.
    """
    if isinstance(restorer, Restorer):
        return estimate_one(restorer, height, width)
    if not isinstance(restorer, Chain):
        raise UsageError("auto decides for each photograph: give a task for an estimate")
    links = [
        estimate_one(link, height, width, more=3 * height * width * (number > 0))
        for number, link in enumerate(restorer.restorers)
    ]
    peak, scratch, least = (max(values) for values in zip(*(link[:3] for link in links), strict=True))
    return Estimate(peak, scratch, least, sum(link.seconds for link in links), links[0].sample)


def estimate_one(restorer: Restorer, height: int, width: int, more: int = 0) -> Estimate:
    """Estimate what one model needs; `more`: bytes held besides, such as a chain's original."""
    photograph = np.broadcast_to(np.uint8(0), (height, width, 3))
    shape, pixels = passes(restorer, height, width)
    with memory_errors_name(height, width):
        needed = plan(
            restorer.model.config,
            shape,
            restorer.features_for(photograph.dtype),
            device=restorer.device,
            max_memory=restorer.options.max_bytes,
            scratch=restorer.scratch,
            more=more + photograph.nbytes + restorer.result_bytes([photograph]),
        )
    for side in SAMPLES:
        image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        start = time.perf_counter()
        restorer(image)
        seconds = time.perf_counter() - start
        if side > SAMPLES[0] and seconds > LONG_SAMPLE:
            break
    return Estimate(*needed[1:], seconds * pixels / side**2, f"{side} x {side} pixels in {seconds:.1f} s")


def passes(restorer: Restorer, height: int, width: int) -> tuple[tuple[int, int, int], int]:
    """Return the largest pass that an image needs (images, height, width), and the padded pixels of all."""
    way, config = restorer.way(height, width), restorer.model.config
    if way == "views":
        shape = (1, views.TILE, views.TILE)
        return shape, padded_pixels(shape, config) * (views.pieces(height, width) + 1)  # and the small view
    if way == "windows":
        parts = list(windows.parts(height, width, config.size_multiple))
        pixels = sum(windows.padded_pixels(*part, config.size_multiple) for part in parts)
        return (1, parts[0][0].stop, parts[0][1].stop), pixels
    shape = (1, height, width)
    return shape, padded_pixels(shape, config)


def gpu_bytes(restorer: Restorer, height: int, width: int) -> int:
    """Return the bytes of a GPU that a floating-point image of this size takes."""
    shape, _ = passes(restorer, height, width)
    return memory.gpu_bytes(restorer.model.config, shape, restorer.features_for(np.float32))
