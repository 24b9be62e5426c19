"""Measure a denoiser on camera raw files, made of clean pictures by the camera model of `degradations`.

    python scripts/raw_noise.py FOLDER [--images 6] [--model NAME_OR_auto]

Each picture becomes a mosaic of sensor values behind a colour matrix and a white balance, once without noise
and once for each noise level, and a DNG of each. All are developed as `maximir restore` does. Prints PSNR
against the development without noise: of the noisy one, and restored.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from maximir import images, metrics
from maximir.degradations import camera
from maximir.pixels import to_unit
from maximir.restoring.opening import open_restorer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.dng import dng, sensor_values

SHOT = (1e-4, 5e-4, 2e-3, 6e-3)  # of SHOT_RANGE: about ISO 200, 1000, 4000 and 12,000 of a small sensor
EXPOSURE = 0.8  # nothing in the picture is brighter than the sensor can hold
NEUTRAL = (0.5, 1.0, 0.6)


def developed(clean: np.ndarray, shot: float, rng: np.random.Generator) -> images.Photo:
    """Return the development of [H, W, 3] in [0, 1], taken with shot noise of this variance; 0: none."""
    matrix = camera.COLOUR_MATRIX + np.diag(1 - camera.COLOUR_MATRIX.sum(axis=1))
    to_camera = np.linalg.inv(matrix)
    sensor = np.clip(camera.to_linear(clean) @ to_camera.T, 0, 1) * NEUTRAL * EXPOSURE
    light = camera.mosaic(sensor, (0, 0))
    if shot:
        light = light + camera.sensor_noise(light, shot, float(np.exp(2.18 * np.log(shot) + 1.20)), rng)
    light[0, 1] = 1  # LibRaw takes the brightest value for the range of the sensor if it is near it
    return images.decode(dng(sensor_values(light), neutral=NEUTRAL, to_camera=to_camera))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--model", default="denoise")
    given = parser.parse_args()
    paths = sorted(given.folder.iterdir(), key=lambda path: (len(path.name), path.name))[: given.images]
    restorer = open_restorer(given.model)
    print("| shot noise | developed | restored | gain, least and most |\n| --- | --- | --- | --- |")
    for shot in SHOT:
        scores = []
        for number, path in enumerate(paths):
            clean = to_unit(images.read(path).rgb)
            wanted = to_unit(developed(clean, 0, np.random.default_rng(0)).rgb)
            photo = developed(clean, shot, np.random.default_rng([number, int(1e6 * shot)]))
            restored = restorer.restore_photo(photo)
            scores.append([metrics.psnr(to_unit(each.rgb), wanted, 1) for each in (photo, restored)])
        noisy, restored_ = np.mean(scores, axis=0)
        gains = [after - before for before, after in scores]
        print(
            f"| {shot} | {noisy:.2f} | {restored_:.2f} | {min(gains):+.2f}, {max(gains):+.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
