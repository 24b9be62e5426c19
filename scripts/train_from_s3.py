"""Train from tar shards on an S3 server, kill and resume; compare with an undisturbed run from disk.

    python scripts/train_from_s3.py [--kills 3] [--workers 2]

Needs s3fs and moto (pip install s3fs 'moto[server]'), whose server runs on loopback. A small network, CPU,
float32. No decoded image is kept in memory, so each sample is read from the server again. Prints the number
of requests, and whether the last states are equal to the last bit.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
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
mixture = { pairs = 1.0 }
steps = 60
learning_rate = 1e-3
precision = "fp32"
phases = [{ until = 1.0, patch = 64, batch = 2 }]
[model]
features = 8
stages = 1
groups = 1
bottlenecks = 1
dropout = 0.1
"""
# Runs like `python -m maximir`, with no memory for decoded images.
TRAIN = """
import sys
from maximir.training import train
train.available_memory = lambda: 0
from maximir.cli import main
main()
"""


def make_shards(folder: Path) -> None:
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(8):
                rng = np.random.default_rng([shard, number])
                pixels = rng.integers(0, 256, (12, 10, 3), np.uint8).repeat(8, 0).repeat(8, 1)
                noisy = (pixels + rng.normal(0, 20, pixels.shape)).clip(0, 255).astype(np.uint8)
                for part, image in (("input", noisy), ("target", pixels)):
                    data = io.BytesIO()
                    Image.fromarray(image).save(data, "png")
                    member = tarfile.TarInfo(f"{shard}{number}.{part}.png")
                    member.size = data.tell()
                    data.seek(0)
                    tar.addfile(member, data)


def start(folder: Path, pairs: str, out: str, workers: int) -> subprocess.Popen[bytes]:
    words = ["train", str(folder / "recipe.toml"), "--pairs", pairs, "--out", str(folder / out)]
    words += ["--device", "cpu", "--save-every", "5", "--workers", str(workers)]
    return subprocess.Popen([sys.executable, "-c", TRAIN, *words], stdout=subprocess.DEVNULL)


def last_state(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    path = sorted((folder / "states").glob("step-*.safetensors"))[-1]
    return path.name, read_tensors(path)[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    import s3fs
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    requests: Counter[str] = Counter()

    def count(self: WSGIRequestHandler, code: object = "-", size: object = "-") -> None:
        requests[f"{self.command} {code}"] += 1

    WSGIRequestHandler.log_request = count  # type: ignore[method-assign, assignment]
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nobody",
        "AWS_ENDPOINT_URL": address,
    }
    os.environ |= {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(RECIPE)
        make_shards(folder / "pairs")
        store = s3fs.S3FileSystem()
        store.mkdir("bucket")
        for shard in (folder / "pairs").iterdir():
            store.pipe(f"bucket/pairs/{shard.name}", shard.read_bytes())
        assert start(folder, str(folder / "pairs"), "disk", 0).wait() == 0
        requests.clear()
        kills = 0
        while True:
            run = start(folder, "s3://bucket/pairs", "cloud", args.workers)
            if kills < args.kills:
                states = folder / "cloud/states"
                before = {path.name for path in states.glob("step-*")}
                while run.poll() is None and {path.name for path in states.glob("step-*")} == before:
                    time.sleep(0.02)
                time.sleep(chance.uniform(0, 0.5))
                if run.poll() is None:
                    run.send_signal(signal.SIGKILL)
                    run.wait()
                    kills += 1
                    continue
            assert run.wait() == 0
            break
        (step, expected), (same, found) = last_state(folder / "disk"), last_state(folder / "cloud")
        equal = step == same and expected.keys() == found.keys()
        equal = equal and all(torch.equal(value, found[key]) for key, value in expected.items())
    server.stop()
    told = ", ".join(f"{number} × {what}" for what, number in sorted(requests.items()))
    print(f"killed {kills} times, {args.workers} loader processes; requests: {told}")
    print(f"last states equal to those of the run from disk: {equal}")
    if not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
