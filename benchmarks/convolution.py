"""Compare MAXIM's 3 x 3 convolutions on this processor, in turn: torch's (oneDNN), the kernels' (Winograd).

    python benchmarks/convolution.py [--threads 1] [--rounds 15]

fp32, with the engine's strips of an image 1024 pixels wide. GFLOP/s count the plain formula's 18 operations
per output and input channel, so Winograd may exceed the processor's peak. The last row is a whole pass of an
S-1 with random weights, in seconds. Each figure is the least of all rounds; the difference of the results is
relative to the largest value.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from maximir import VARIANTS, Maxim
from maximir.engine import network as engine
from maximir.network.layers import Conv
from maximir.ops import functional as ops

SHAPES = ((34, 1024, 32), (34, 512, 64), (34, 256, 128))


def least(rounds: int, *calls: Callable[[], Tensor]) -> list[float]:
    """Return the least seconds of each call, taken in turn."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, seconds, strict=True):
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
    return [min(taken) for taken in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description="Convolutions: torch's and the kernels'.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--side", type=int, default=512, help="side of the image for the whole pass")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    native = ops.fits_kernel

    def both(call: Callable[[], Tensor], rounds: int) -> tuple[list[float], float]:
        def plain() -> Tensor:
            ops.fits_kernel = lambda *_: False
            try:
                return call()
            finally:
                ops.fits_kernel = native

        a, b = plain(), call()
        return least(rounds, plain, call), ((a - b).abs().max() / a.abs().max()).item()

    print("| | torch | kernels | ratio | difference |\n| --- | --- | --- | --- | --- |")
    with torch.inference_mode():
        for height, width, channels in SHAPES:
            conv, x = Conv(channels, channels, 3), torch.randn(1, height, width, channels)
            seconds, difference = both(lambda conv=conv, x=x: conv(x), given.rounds)
            rates = [18 * height * width * channels**2 / s / 1e9 for s in seconds]
            told = " | ".join(f"{rate:.0f} GFLOP/s" for rate in rates)
            print(
                f"| {height} x {width} x {channels} | {told} | {rates[1] / rates[0]:.2f} | {difference:.0e} |"
            )
    model = Maxim(VARIANTS["S-1"]).eval()
    with torch.no_grad():  # weights of ordinary size: a new network's are near zero
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(std=0.5 * p[0].numel() ** -0.5)
    image = torch.rand(1, 3, given.side, given.side)
    with torch.inference_mode():
        seconds, difference = both(lambda: engine.run(model, image)[-1][-1], max(3, given.rounds // 5))
    told = " | ".join(f"{s:.2f} s" for s in seconds)
    print(f"| S-1, {given.side} x {given.side} | {told} | {seconds[0] / seconds[1]:.2f} | {difference:.0e} |")


if __name__ == "__main__":
    main()
