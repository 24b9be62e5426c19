"""Measure the savings of fewer stages: seconds and peak memory of each model, each in its own process.

python benchmarks/stages.py [MODEL...] [--size 512x512] [--precision fp32]

MODEL: names that `maximir models` lists as here; default: all of the authors' among them. Time is the fastest
    of
three images after a warm-up; memory is the process's peak, including interpreter and weights.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from maximir import Restorer
from maximir.models import choice


def measure(name: str, stages: int, width: int, height: int, precision: str) -> None:
    restorer = Restorer(name, stages=stages, precision=precision, view="exact")
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    seconds = []
    for _ in range(4):
        clock = time.perf_counter()
        restorer(image)
        seconds.append(time.perf_counter() - clock)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(min(seconds[1:]), int(peak[1]) / 1e6)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("models", nargs="*")
parser.add_argument("--size", default="512x512")
parser.add_argument("--precision", default="fp32")
parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # set in the child process
args = parser.parse_args()
width, height = map(int, args.size.split("x"))
if args.only:
    measure(args.models[0], args.only, width, height, args.precision)
    sys.exit()
here = choice.available()
print(
    f"{args.size}, {args.precision}\n\n"
    "| model | stages | s | of the whole | peak GB |\n| --- | --- | --- | --- | --- |"
)
for name in args.models or [card.name for card in here.values() if card.origin == "authors"]:
    rows = []
    for stages in range(1, (here[name].header.stages or 1) + 1):
        command = [
            sys.executable,
            __file__,
            name,
            "--size",
            args.size,
            "--precision",
            args.precision,
            "--only",
            str(stages),
        ]
        seconds, memory = map(
            float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        )
        rows.append((stages, seconds, memory))
    for stages, seconds, memory in rows:
        print(
            f"| {name} | {stages} | {seconds:.2f} | {seconds / rows[-1][1]:.0%} | {memory:.2f} |", flush=True
        )
