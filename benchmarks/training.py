"""Time a training step on this processor, with and without the native kernels, in turn.

    python benchmarks/training.py [--patch 128] [--batch 1] [--rounds 8] [--threads 1]

An S-1 in fp32: forward, loss, gradients; then the optimisers' steps. Medians over the rounds in seconds, and
images per second from forward to gradients.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from maximir import VARIANTS, Maxim
from maximir.ops import kernels
from maximir.training.losses import restoration_loss
from maximir.training.optimizers import OPTIMIZERS, make_optimizers


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step, with and without native kernels.")
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model = Maxim(VARIANTS["S-1"]).train()
    image, target = torch.rand(2, given.batch, 3, given.patch, given.patch)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        restoration_loss(model(image), target).backward()  # type: ignore[no-untyped-call]

    taken: dict[bool, list[float]] = {False: [], True: []}
    for round in range(given.rounds + 1):
        for native, times in taken.items():
            with kernels.allow(native):
                took = seconds(step)
                if round:  # the first round is a warm-up
                    times.append(took)
    medians = {native: statistics.median(times) for native, times in taken.items()}
    print(f"S-1, {given.batch} x {given.patch} x {given.patch}, fp32, {given.threads} thread(s)\n")
    print("| | s | images/s | |\n| --- | --- | --- | --- |")
    for native, name in ((False, "torch"), (True, "kernels")):
        faster = medians[False] / medians[native]
        print(f"| {name} | {medians[native]:.2f} | {given.batch / medians[native]:.2f} | {faster:.2f} |")
    for name in OPTIMIZERS:
        optimizers = make_optimizers(model, name, 1e-9, (0.9, 0.999), 1e-9)
        times = [seconds(lambda o=optimizers: [each.step() for each in o]) for _ in range(4)]
        print(f"| {name} | {statistics.median(times[1:]):.2f} | | |")


if __name__ == "__main__":
    main()
