"""Kill a training run with signal 9 at random moments, many times; compare with an undisturbed run.

    python scripts/kill_training.py --kills 40 --workers 2

A small network, CPU, float32. Prints the number of kills, and whether the last states (weights, average,
moments) and the finished models are equal to the last bit.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maximir.models.checkpoint import read_tensors

RECIPE = """
task = "denoise"
mixture = { gaussian = 0.5, camera-noise = 0.5 }
steps = STEPS
learning_rate = 1e-3
precision = "fp32"
mixup = 0.3
phases = [{ until = 0.5, patch = 64, batch = 4 }, { until = 1.0, patch = 64, batch = 2 }]
[model]
features = 8
stages = 1
groups = 1
bottlenecks = 1
dropout = 0.1
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--kills", type=int, default=40)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--longest", type=float, default=8.0, help="maximum seconds of a run")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()


def command(folder: Path, run: str) -> list[str]:
    train = [
        sys.executable,
        "-m",
        "maximir",
        "train",
        str(folder / "recipe.toml"),
        "--data",
        str(folder / "clean"),
    ]
    options = [
        "--out",
        str(folder / run),
        "--device",
        "cpu",
        "--save-every",
        "1",
        "--workers",
        str(args.workers),
    ]
    return train + options


def last_state(folder: Path, run: str) -> dict[str, torch.Tensor]:
    return read_tensors(sorted((folder / run / "states").glob("step-*.safetensors"))[-1])[1]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "recipe.toml").write_text(RECIPE.replace("STEPS", str(args.steps)))
    (folder / "clean").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).resize((100, 90), Image.Resampling.BICUBIC).save(
            folder / f"clean/{number}.png"
        )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command(folder, "whole"), check=True, env=environment, stdout=subprocess.DEVNULL)
    chance = random.Random(args.seed)
    kills, resumed, damaged = 0, Counter[int](), 0
    finished = folder / "killed" / "model.safetensors"
    while kills < args.kills and not finished.exists():
        log = (folder / "out.txt").open("w")
        process = subprocess.Popen(
            command(folder, "killed"), stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            process.wait(chance.uniform(0, args.longest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        text = (folder / "out.txt").read_text()
        resumed.update(int(step) for step in re.findall(r"resumed from .*step-(\d+)", text))
        damaged += "damaged" in text
        time.sleep(0.05)
    subprocess.run(command(folder, "killed"), check=True, env=environment, stdout=subprocess.DEVNULL)
    states = equal(last_state(folder, "killed"), last_state(folder, "whole"))
    models = equal(*(read_tensors(folder / run / "model.safetensors")[1] for run in ("killed", "whole")))
    print(
        f"killed {kills} times, resumed {sum(resumed.values())} times at {len(resumed)} different steps, "
        f"damaged states: {damaged}; last states equal: {states}, finished models equal: {models}"
    )
    sys.exit(0 if states and models and not damaged else 1)
