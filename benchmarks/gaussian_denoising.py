"""Score a model on Gaussian noise, in the tables' convention and in that of files.

    python benchmarks/gaussian_denoising.py FOLDER... [--weights denoise] [--sigmas 15 25 50]

Each folder is one set of clean images. Tables: float noise that is not clipped goes in. Files: the noise is
clipped and rounded to 8 bits first. Both: RGB PSNR of the result rounded to 8 bits, averaged over images; the
noise of image k (by name) is seeded with (sigma, k).
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from maximir import Restorer
from maximir.data import find_images, load_rgb
from maximir.degradations import gaussian_noise, quantise
from maximir.metrics import psnr
from maximir.pixels import UINT8, from_unit, to_unit


def mean_psnr(
    restorer: Restorer, images: list[np.ndarray], sigma: float, *, as_file: bool
) -> tuple[float, float]:
    """Of the noisy images, and of the restored ones."""
    before, after = [], []
    for number, clean in enumerate(images):
        rng = np.random.default_rng([int(sigma), number])
        noisy = gaussian_noise(to_unit(clean), sigma, rng)
        if as_file:
            noisy = quantise(noisy)
        before.append(psnr(noisy * 255.0, clean))
        after.append(psnr(from_unit(restorer(noisy), UINT8), clean))
    return float(np.mean(before)), float(np.mean(after))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", default="denoise")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[15, 25, 50])
    args = parser.parse_args()

    restorer = Restorer(args.weights, precision=args.precision)
    table = Table(
        "set", "images", "sigma", "noisy, tables", "restored, tables", "noisy, files", "restored, files"
    )
    for folder in args.folders:
        images = [load_rgb(path) for path in find_images([folder])]
        for sigma in track(args.sigmas, description=folder.name, console=Console(stderr=True)):
            scores = [mean_psnr(restorer, images, sigma, as_file=as_file) for as_file in (False, True)]
            table.add_row(
                folder.name,
                str(len(images)),
                f"{sigma:g}",
                *(f"{value:.2f}" for pair in scores for value in pair),
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
