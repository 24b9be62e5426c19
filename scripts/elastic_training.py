"""Train on two nodes, lose one and add another, and check how the run ends.

    python scripts/elastic_training.py [--steps 60]

Two torchrun agents on loopback (c10d rendezvous, gloo, --nnodes 1:2, one process each) train a small network
in float32. After the second state the second node is killed (signal 9, agent and process). When the first one
has continued alone for two states, a new node joins, and both run to the end. Checked are:

- that the run ends, and its log has each step once;
- that the steps done alone are equal, to the last bit, to those of one process that starts from the same
state; - how far the end is from an undisturbed run of one process: only the order of sums differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from maximir.models.checkpoint import read_tensors

RECIPE = """
task = "denoise"
mixture = { gaussian = 1.0 }
steps = STEPS
learning_rate = 2e-4
precision = "fp32"
start_as_identity = true
phases = [{ until = 1.0, patch = 64, batch = 4 }]
[model]
features = 8
stages = 1
groups = 1
bottlenecks = 1
"""
SAVE = 5
NEAR = 1e-3  # of the weights, relative: allowed effect of another order of sums


class Node:
    """A torchrun agent and its process."""

    def __init__(self, folder: Path, port: int, host: bool, words: list[str]) -> None:
        rendezvous = ["--rdzv-backend=c10d", "--rdzv-id=run", f"--rdzv-endpoint=127.0.0.1:{port}"]
        rendezvous += [f"--rdzv-conf=is_host={int(host)},last_call_timeout=2", "--local-addr=127.0.0.1"]
        launcher = ["-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3"]
        with (folder / f"log-{time.monotonic_ns()}").open("wb") as self.log:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, *rendezvous, *words],
                stdout=self.log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        agent = psutil.Process(self.process.pid)
        for process in [agent, *agent.children(recursive=True)]:
            process.send_signal(signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        return Path(self.log.name).read_text(errors="replace")


def steps_of(states: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in states.glob("step-*.safetensors"))


def keep(states: Path, kept: Path, over: threading.Event) -> None:
    """Copy each state before the run removes it; states are written atomically."""
    while not over.wait(0.02):
        for path in states.glob("step-*.safetensors"):
            if not (kept / path.name).exists():
                try:
                    os.link(path, kept / path.name)
                except OSError:
                    continue  # removed meanwhile


def wait_for(node: Node, states: Path, step: int) -> None:
    """Wait for a state of this step or a later one."""
    while not (steps_of(states) and steps_of(states)[-1] >= step):
        if node.process.poll() is not None:
            raise SystemExit(f"the node ended early:\n{node.said()}")
        time.sleep(0.05)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(path)[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    # Otherwise the first node keeps the address of its first round to itself, and a node that joins later
    # waits for it in vain (torch 2.13).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(RECIPE.replace("STEPS", str(args.steps)))
        (folder / "clean").mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), np.uint8)
            picture = Image.fromarray(pixels).resize((100, 90), Image.Resampling.BICUBIC)
            picture.save(folder / f"clean/{number}.png")

        def words(out: str) -> list[str]:
            train = ["-m", "maximir", "train", str(folder / "recipe.toml"), "--data", str(folder / "clean")]
            return [
                *train,
                "--out",
                str(folder / out),
                "--device=cpu",
                f"--save-every={SAVE}",
                "--log-every=1",
            ]

        def alone(out: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, *words(out)], stdout=subprocess.DEVNULL)

        assert alone("undisturbed").wait() == 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        states, kept, over = folder / "elastic/states", folder / "kept", threading.Event()
        kept.mkdir()
        keeper = threading.Thread(target=keep, args=(states, kept, over), daemon=True)
        keeper.start()
        first = Node(folder, port, True, words("elastic"))
        second = Node(folder, port, False, words("elastic"))
        wait_for(first, states, 2 * SAVE)
        second.kill()
        killed, clock = steps_of(states)[-1], time.monotonic()
        wait_for(first, states, killed + SAVE)
        went_on = time.monotonic() - clock
        wait_for(first, states, killed + 2 * SAVE)
        third = Node(folder, port, False, words("elastic"))
        codes = first.process.wait(), third.process.wait()
        time.sleep(0.1)
        over.set()
        keeper.join()
        if codes != (0, 0):
            print(first.said()[-3000:], third.said()[-3000:], sep="\n\nthe third node:\n")
            raise SystemExit(f"the nodes ended with {codes}")
        begun = [int(step) for step in re.findall(r"resumed from .*step-(\d+)", first.said() + third.said())]
        counts = [int(n) for n in re.findall(r"validate with; (\d) x", first.said() + third.said())]
        print(f"killed after the state of step {killed}; the first new state came {went_on:.1f} s later")
        print(f"processes: {counts}; resumed from the states of steps {begun}")

        logged = [
            json.loads(line)["step"] for line in (folder / "elastic/log.jsonl").read_text().splitlines()
        ]
        whole = logged == list(range(1, args.steps + 1))
        print(f"each of the {args.steps} steps is in the log once: {whole}")

        (folder / "alone/states").mkdir(parents=True)
        shutil.copy(kept / f"step-{begun[0]:08d}.safetensors", folder / "alone/states")
        shutil.copy(folder / "elastic/recipe.json", folder / "alone")
        over.clear()
        (folder / "kept-alone").mkdir()
        keeper = threading.Thread(target=keep, args=(folder / "alone/states", folder / "kept-alone", over))
        keeper.start()
        run = alone("alone")
        while not (folder / f"kept-alone/step-{begun[1]:08d}.safetensors").exists() and run.poll() is None:
            time.sleep(0.05)
        run.kill()
        run.wait()
        over.set()
        keeper.join()
        same = []
        for step in range(begun[0] + SAVE, begun[1] + 1, SAVE):
            path = f"step-{step:08d}.safetensors"
            ours, theirs = tensors(kept / path), tensors(folder / "kept-alone" / path)
            same.append(all(torch.equal(value, theirs[key]) for key, value in ours.items()))
        print(f"states of the steps done alone that are equal to the last bit: {sum(same)} of {len(same)}")

        last = f"step-{args.steps:08d}.safetensors"
        ours, theirs = tensors(states / last), tensors(folder / "undisturbed/states" / last)
        weights = [key for key in ours if key.startswith("model.")]
        apart = sum((ours[key] - theirs[key]).square().sum().item() for key in weights)
        size = sum(theirs[key].square().sum().item() for key in weights)
        difference = (apart / size) ** 0.5
        print(f"weights at the end, from those of the undisturbed run: {difference:.1e} of their norm")
        if not (whole and same and all(same) and difference < NEAR and 2 in counts and 1 in counts):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
