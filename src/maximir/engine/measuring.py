"""Measurement of this processor's speed in bf16 relative to fp32, once in a few milliseconds, and kept.

One thread's processor time, so that other programs hardly matter. Kept for each processor, build of
the kernels and version of torch, in a file of the user's cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from maximir.engine import blocks, native
from maximir.files import write_atomically
from maximir.network.blocks import ConvChannelAttention, MultiAxisGatedMlp
from maximir.ops import kernels

CHANNELS, SIDE, WINDOW = 32, 64, 16  # of the map, and of its blocks
PASSES = 5


@functools.cache
def speed_of_bf16(processor: str) -> float | None:
    """Return the speed relative to fp32, kept or measured; None without kernels, which decide it.

    Args:
        processor: its name, for the file.
    """
    name = kernels.name()
    if name is None:
        return None
    key = f"{processor}, {name} {kernels.digest()}, torch {torch.__version__}"
    file = cache_file()
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        known = {str(k): float(v) for k, v in json.loads(file.read_text("utf-8")).items()}
    if key not in known:
        known[key] = round(measure(), 2)
        with contextlib.suppress(OSError):  # then the next process measures again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(known, indent=1).encode())
    return known[key]


def cache_file() -> Path:
    from maximir.places import cache_folder

    return cache_folder() / "bf16.json"


def measure() -> float:
    """Time a multi-axis block and the convolutions of a channel attention, alternately; the best of each."""
    seconds = {half: [0.0] * PASSES for half in (False, True)}
    runs = {half: sweeps(half) for half in seconds}
    for number in range(-1, PASSES):  # the first one warms up
        for half, run in runs.items():
            start = time.thread_time()
            run()
            if number >= 0:
                seconds[half][number] = time.thread_time() - start
    return min(seconds[False]) / min(seconds[True])


def sweeps(half: bool) -> Callable[[], None]:
    """Return a function that runs the two sweeps in one thread."""
    x = pattern(1, SIDE, SIDE, CHANNELS)
    out = torch.empty_like(x, dtype=torch.bfloat16 if half else torch.float32)
    sums = torch.empty(1, SIDE, CHANNELS)
    with torch.device("meta"):
        mab = MultiAxisGatedMlp(CHANNELS, WINDOW, 0.0).float()
        attention = ConvChannelAttention(CHANNELS, 4).float()
    mab.to_empty(device="cpu"), attention.to_empty(device="cpu")
    for parameter in (*mab.parameters(), *attention.parameters()):
        parameter.data = pattern(*parameter.shape) / CHANNELS
    table = blocks.multi_axis_table(mab, "block")
    mab_weights = native.structure(native.MabWeights, table)
    windows = (SIDE // WINDOW) ** 2
    sweep = native.Sweep(1, SIDE, SIDE, CHANNELS, WINDOW, 0, windows, False, half, 1)
    convolutions = blocks.parameters_of(attention.norm, attention.conv1, attention.conv2)
    rcab_weights = native.RcabWeights(*native.addresses(convolutions))
    rcab = native.MapRows(1, SIDE, SIDE, CHANNELS, 0, SIDE, half, False, 1)

    def run(keep: object = (mab, attention, table)) -> None:
        kernels.call(
            "mab_sweep", ctypes.byref(sweep), ctypes.byref(mab_weights), *kernels.pointers(x, None, out)
        )
        kernels.call(
            "rcab_sweep", ctypes.byref(rcab), ctypes.byref(rcab_weights), *kernels.pointers(x, out, sums)
        )

    return run


def pattern(*shape: int) -> torch.Tensor:
    """Return values in [-1, 1], not zeros, which would be faster, and not random: those are the caller's."""
    count = functools.reduce(int.__mul__, shape)
    return torch.sin(torch.arange(count, dtype=torch.float32, device="cpu") * 1.7).view(*shape)
