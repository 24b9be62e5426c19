"""Degradations of clean photographs, by name. Seeded: the same generator state gives the same damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from maximir.degradations import blur, camera, compression, haze, lowlight, noise, rain, raindrops
from maximir.pixels import to_unit


@dataclass(frozen=True)
class Degradation:
    """A degradation.

    Attributes:
        function: clean float32 [H, W, 3] in [0, 1] and a generator → degraded, of the same shape and type.
            With `needs_depth`, the third argument is the scene's depth [H, W].
        margin: pixels needed beyond each border; the result is invalid there.
        needs_depth: applies only to photographs with a depth map.
    """

    function: Callable[..., np.ndarray]
    margin: int = 0
    needs_depth: bool = False

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator, depth: np.ndarray | None = None
    ) -> np.ndarray:
        degraded = self.function(image, rng, depth) if self.needs_depth else self.function(image, rng)
        return degraded.astype(np.float32, copy=False)


DEGRADATIONS = {
    "gaussian": Degradation(noise.blind_gaussian),
    "gaussian-25": Degradation(noise.gaussian_25),
    "camera-noise": Degradation(camera.camera_noise),
    "compression": Degradation(compression.compressed),
    "motion-blur": Degradation(blur.motion_blur, margin=blur.MARGIN),
    "straight-motion": Degradation(
        partial(blur.motion_blur, kind=blur.straight_path, longest=12.0, noise=0.3), margin=blur.MARGIN
    ),
    "averaged-frames": Degradation(
        partial(blur.motion_blur, kind=blur.frames_path, linear=0.5, noise=0.05, softness=0.5),
        margin=blur.MARGIN,
    ),
    "rain": Degradation(rain.rain),
    "raindrops": Degradation(raindrops.raindrops),
    "haze": Degradation(haze.haze),
    "depth-haze": Degradation(haze.haze, needs_depth=True),
    "low-light": Degradation(lowlight.low_light),
}


def degrade_photograph(
    clean: np.ndarray, name: str, seed: Sequence[int], depth: np.ndarray | None = None
) -> np.ndarray:
    """Degrade a whole photograph, uint8 [H, W, 3], by the degradation `name`; return float32.

    Args:
        seed: of all random choices.
        depth: float32 [H, W], for degradations that need it.
    """
    m = DEGRADATIONS[name].margin
    padded = np.pad(to_unit(clean), [(m, m), (m, m), (0, 0)], mode="reflect")
    degraded = DEGRADATIONS[name](padded, np.random.default_rng(seed), depth)
    return degraded[m : m + clean.shape[0], m : m + clean.shape[1]]
