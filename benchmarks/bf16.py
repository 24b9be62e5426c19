"""Measure how close bf16 comes to fp32: PSNR between the two results, image by image.

python benchmarks/bf16.py FOLDER [--weights denoise] [--sigma 25]

FOLDER holds clean images. Each gets unclipped Gaussian noise, seeded by its number.
"""

import argparse
from pathlib import Path

import numpy as np

from maximir import Restorer
from maximir.degradations.noise import gaussian_noise
from maximir.pixels import to_unit
from maximir.training.data import find_scenes

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
parser.add_argument("--weights", default="denoise")
parser.add_argument("--sigma", type=float, default=25)
args = parser.parse_args()

exact, half = (Restorer(args.weights, precision=precision) for precision in ("fp32", "bf16"))
scores = []
for number, scene in enumerate(find_scenes([args.folder])):
    noisy = gaussian_noise(to_unit(scene.target.load()), args.sigma, np.random.default_rng(number))
    scores.append(-10 * np.log10(np.square(exact(noisy) - half(noisy)).mean()))
print(f"{len(scores)} images: {min(scores):.1f} dB at least, {np.mean(scores):.1f} dB on average")
