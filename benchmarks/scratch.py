"""Restore a large photograph with little memory: time, and bytes written to scratch files.

    python benchmarks/scratch.py [--size 3000x2000] [--max-memory 1.3GB] [--scratch FOLDER] [--against SRC]

S-2 with random weights, fp32, an image of noise, each pass in its own process. `--against` takes the `src`
folder of another checkout, which is run first. Written: bytes that the process made dirty in files
(/proc/self/io).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent / "src"

PASS = """
import resource, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
from maximir import Restorer
from maximir.models.checkpoint import save_model
from maximir.network.config import VARIANTS
from maximir.network.model import Maxim
from maximir.sizes import parse_pixels

size, memory, scratch = sys.argv[1:]
height, width = parse_pixels(size)
torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    weights = Path(folder) / "s2.safetensors"
    save_model(Maxim(VARIANTS["S-2"]), weights)
    limits = {"max_memory": memory, "scratch": scratch}
    restorer = Restorer(weights, device="cpu", precision="fp32", view="exact", **limits)
image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

def facts():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    counts = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    return np.array([time.perf_counter(), usage.ru_utime, usage.ru_stime, float(counts["write_bytes"]) / 1e9])

Path("/proc/self/clear_refs").write_text("5")  # restarts the peak for the pass
before = facts()
result = restorer(image)
seconds, user, system, written = facts() - before
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
print(f"{seconds:.0f} | {user:.0f} | {system:.0f} | {peak:.2f} | {written:.1f} | {int(result.sum())}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Restore a large photograph with little memory.")
    parser.add_argument("--size", default="3000x2000")
    parser.add_argument("--max-memory", default="1.3GB")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    given = parser.parse_args()
    print("| | s | user s | system s | peak GB | written GB | sum |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for source in filter(None, (given.against, HERE)):
        command = [sys.executable, "-c", PASS, given.size, given.max_memory, str(given.scratch)]
        environment = os.environ | {"PYTHONPATH": str(source)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        print(
            f"| {'here' if source is HERE else 'against'} | {done.stdout.strip() or done.stderr[-300:]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
