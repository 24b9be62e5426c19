"""Measure what a megapixel costs with each model in the box: GFLOP, and seconds in fp32 and bf16.

python benchmarks/tiers.py [MODEL...] [--size 1024x1024]

GFLOP are those of torch's counter for the plain network. Time is the faster of two images after a warm-up,
through `maximir.Restorer`, on all cores.
"""

import argparse
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import maximir
from maximir.models.catalogue import MODELS


def gflop(name: str) -> float:
    """Return GFLOP per megapixel (10^6 pixels)."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        maximir.load_model(name).eval()(torch.rand(1, 3, 512, 512))
    return counter.get_total_flops() / 512**2 / 1e3


def seconds(name: str, image: np.ndarray, precision: str) -> float:
    """Return seconds per megapixel."""
    restorer = maximir.Restorer(name, precision=precision, view="exact")
    taken = []
    for _ in range(3):
        clock = time.perf_counter()
        restorer(image)
        taken.append(time.perf_counter() - clock)
    return min(taken[1:]) / (image.shape[0] * image.shape[1]) * 1e6


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("models", nargs="*")
parser.add_argument("--size", default="1024x1024")
args = parser.parse_args()
width, height = map(int, args.size.split("x"))
image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
print(f"{args.size}\n\n| model | GFLOP a megapixel | s, fp32 | s, bf16 |\n| --- | --- | --- | --- |")
for name in args.models or [model.name for model in MODELS]:
    times = [seconds(name, image, precision) for precision in ("fp32", "bf16")]
    print(f"| {name} | {gflop(name):.0f} | {times[0]:.2f} | {times[1]:.2f} |", flush=True)
