"""Time the command up to the first small picture, relative to `import torch`.

python benchmarks/startup.py [--rounds 5]

Each round runs every command once in its own process; the medians are compared.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=5)
args = parser.parse_args()
with tempfile.TemporaryDirectory() as name:
    picture = Path(name) / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(picture)
    restore = f"restore {picture} -o {name}/out --task denoise --overwrite"
    commands = {
        "import torch": ["-c", "import torch"],
        "maximir --version": ["-m", "maximir", "--version"],
        "maximir --help": ["-m", "maximir", "--help"],
        "maximir models": ["-m", "maximir", "models"],
        "maximir restore, one picture of 64 x 64": ["-m", "maximir", *restore.split()],
    }
    seconds: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(args.rounds):
        for what, words in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            seconds[what].append(time.perf_counter() - start)
medians = {what: statistics.median(times) for what, times in seconds.items()}
print("| | s | of `import torch` |\n| --- | --- | --- |")
for what, median in medians.items():
    print(f"| {what} | {median:.2f} | {median / medians['import torch']:.2f} |")
