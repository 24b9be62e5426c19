"""Kill `maximir restore --resume` with signal 9 at random moments; compare with an undisturbed run.

    python scripts/kill_restore.py --kills 100

Restores small pictures in all writable formats, alone and in batches, and two unreadable files. Each run is
killed soon after its first new result, to hit writing too; when a folder is complete, the next starts. After
each kill every file under its final name is decoded. Prints how many kills left an incomplete file (under a
temporary name), how many results were incomplete (none may be), and whether all folders ended with the files
of the undisturbed run, byte for byte.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from maximir import images
from maximir.batch.journal import FILE
from maximir.errors import MaximirError
from maximir.files import PART

SUFFIXES = ("png", "jpg", "webp", "tif", "avif")


def make_photographs(folder: Path, count: int, rng: np.random.Generator) -> None:
    folder.mkdir()
    suffixes = [suffix for suffix in SUFFIXES if f".{suffix}" in images.WRITABLE]
    for number in range(count):
        coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
        pixels = coarse.repeat(16, 0).repeat(16, 1) if number % 5 else coarse.repeat(40, 0).repeat(40, 1)
        images.write(images.Photo(pixels), folder / f"{number:03}.{suffixes[number % len(suffixes)]}")
    (folder / "empty.png").write_bytes(b"")
    (folder / "torn.jpg").write_bytes((folder / "001.jpg").read_bytes()[:300])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def are_whole(folder: Path) -> bool:
    try:
        for path in folder.iterdir():
            if not path.name.startswith("."):
                images.read(path)
    except MaximirError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument(
        "--longest", type=float, default=0.3, help="maximum seconds of a run after its first result"
    )
    parser.add_argument("--task", default="denoise")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    kills, halves, torn, rounds, equal = 0, 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "in", args.images, np.random.default_rng(args.seed))

        def start(out: Path) -> subprocess.Popen[bytes]:
            words = ["restore", str(folder / "in"), "-o", str(out), "--task", args.task, "--resume"]
            return subprocess.Popen(
                [sys.executable, "-m", "maximir", *words],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

        start(folder / "undisturbed").wait()
        expected = contents(folder / "undisturbed")
        while kills < args.kills:
            rounds += 1
            out = folder / f"out{rounds}"
            while True:
                journal = out / FILE
                size = journal.stat().st_size if journal.exists() else 0
                run = start(out)
                while run.poll() is None and (not journal.exists() or journal.stat().st_size <= size):
                    time.sleep(0.001)
                time.sleep(chance.uniform(0, args.longest))
                if run.poll() is not None:
                    break
                if kills == args.kills:  # enough: let this one finish
                    run.wait()
                    break
                run.send_signal(signal.SIGKILL)
                run.wait()
                kills += 1
                halves += any(path.name.startswith(PART) for path in out.iterdir())
                torn += not are_whole(out)
            equal += contents(out) == expected
    print(
        f"{kills} kills in {rounds} folders of {args.images + 2} files; incomplete files left behind, "
        f"which the next run removes: {halves}; incomplete results: {torn}; folders equal to the "
        f"undisturbed run: {equal} of {rounds}"
    )
    if torn or equal < rounds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
