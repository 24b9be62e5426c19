"""Measure the effect of the models in the box on clean photographs and on uniform areas.

    python scripts/harmless.py DATA          # DATA/validation/mcmaster: clean photographs
    python scripts/harmless.py --large       # grids at 1024 x 1024 and 2000 x 1500

clean: PSNR (dB) between a clean photograph and its result, the worst of all, centre crops of 256 pixels; and
the largest shift of a channel's mean, in levels of 255. grid: rms residual of flat fields and gradients after
subtracting the best polynomial of degree 10, in levels, the worst of five fields at 256 x 256 and at 500 x
333. The polynomial fits the tone curve that a model applies to a gradient, but not a period of 64 pixels.
--large: the same for a flat field and a diagonal gradient, in the default view. --models: only these.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.evenness import residual
from maximir import Restorer
from maximir.models.catalogue import MODELS

SIZES = ((256, 256), (333, 500))
LARGE = ((1024, 1024), (1500, 2000))
DETAIL = ("denoise", "deblur", "derain")  # the others change light and colours of any photograph


def fields(height: int, width: int) -> list[np.ndarray]:
    """Return flat fields and gradients, `[H, W]` in [0, 1]."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return [np.full((height, width), level) for level in (0.1, 0.5, 0.9)] + [
        0.2 + 0.6 * x,
        0.2 + 0.3 * (x + y),
    ]


def grid(restorer: Restorer, field: np.ndarray) -> float:
    result = restorer(np.repeat(field[..., None], 3, axis=-1).astype(np.float32)).clip(0, 1) * 255
    return max(residual(result[..., channel].astype(float)) for channel in range(3))


def large_grids(models: list[str]) -> None:
    print("| model | " + " | ".join(f"{w} x {h}: flat, gradient" for h, w in LARGE) + " |")
    print("| --- | --- | --- |")
    for name in models:
        restorer = Restorer(name, precision="fp32")
        pairs = [[grid(restorer, fields(*size)[k]) for k in (1, 4)] for size in LARGE]
        told = " | ".join(f"{flat:.2f}, {gradient:.2f}" for flat, gradient in pairs)
        print(f"| {name} | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the models in the box on input without damage.")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--large", action="store_true", help="measure grids of large fields instead")
    parser.add_argument("--models", nargs="+", default=[model.name for model in MODELS])
    given = parser.parse_args()
    if given.large:
        return large_grids(given.models)
    if given.data is None:
        parser.error("give DATA or --large")
    photographs = []
    for path in sorted((given.data / "validation/mcmaster").iterdir()):
        photograph = np.asarray(Image.open(path).convert("RGB"))
        top, left = (side // 2 - 128 for side in photograph.shape[:2])
        photographs.append(photograph[top : top + 256, left : left + 256])
    print("| model | clean | shift | grid, 256 x 256 | grid, 500 x 333 |\n| --- | --- | --- | --- | --- |")
    for name in given.models:
        restorer, clean, shift = Restorer(name, precision="fp32", view="exact"), [], []
        for photograph in photographs if restorer.task in DETAIL else ():
            difference = restorer(photograph).astype(float) - photograph
            clean.append(-10 * np.log10(np.square(difference).mean() / 255**2))
            shift.append(np.abs(difference.mean(axis=(0, 1))).max())
        told = f"{min(clean):.1f} | {max(shift):.1f}" if clean else " | "
        grids = [max(grid(restorer, field) for field in fields(*size)) for size in SIZES]
        print(f"| {name} | {told} | {grids[0]:.2f} | {grids[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
