"""Measure time and memory of the engine, a plain forward pass and the official JAX code.

python benchmarks/engine.py                                    # S-2 at 256x256 and 1024x1024
python benchmarks/engine.py --official CHECKOUT --jax-python ENV/bin/python
python benchmarks/engine.py --profile 1024x1024                # time by kind of work

CHECKOUT is a clone of github.com/google-research/maxim, ENV an environment with jax, flax and einops. Every
figure comes from its own process, one after the other. Use a quiet machine and read the ratios. "first" is
the first image of a size in a process that has restored another size, "warm" the best of the following ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from maximir.engine import network as engine
from maximir.engine.sweeps import Streaming
from maximir.network.config import VARIANTS
from maximir.network.model import Maxim
from maximir.ops import kernels
from maximir.restoring.memory import needs

HERE = Path(__file__).parent
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
PLAIN = "plain PyTorch, fp32"  # the modules, without engine and kernels
WAYS = {
    PLAIN: Streaming,
    "maximir, fp32, no kernels": lambda: Streaming(kernels=False),
    "maximir, fp32": Streaming,
    "maximir, bf16": lambda: Streaming(features=torch.bfloat16),
}
OFFICIAL = "official JAX, fp32"


def restore(way: str, model: Maxim, image: torch.Tensor) -> float:
    """Return the seconds of one forward pass."""
    streaming = WAYS[way]()
    with torch.inference_mode(), kernels.allow(way != PLAIN):
        start = time.perf_counter()
        if way == PLAIN:
            model(image)
        else:
            engine.run(model, image, streaming)
        if image.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def measure(way: str, variant: str, size: str, batch: int, device: str) -> None:
    """Print first and warm seconds and the peak memory in GB; runs in its own process."""
    width, height = map(int, size.split("x"))
    torch.manual_seed(0)
    model = Maxim(VARIANTS[variant]).eval().to(device)
    restore(way, model, torch.rand(1, 3, 64, 64, device=device))  # creates threads and kernels
    image = torch.rand(batch, 3, height, width, device=device)
    repeats = max(1, min(5, round(1e6 / (height * width * batch))))
    first, *warm = (restore(way, model, image) for _ in range(1 + repeats))
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e9
    print(json.dumps({"first": first, "warm": min(warm), "peak": peak}))


def convolution_peak(dtype: torch.dtype) -> float:
    """Return the FLOP/s of torch's fastest operation here: a 3x3 convolution of many channels."""
    x = torch.rand(1, 128, 128, 256, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.rand(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    best = 1e9
    with torch.inference_mode():
        for _ in range(12):
            start = time.perf_counter()
            torch.nn.functional.conv2d(x, weight, padding=1)
            best = min(best, time.perf_counter() - start)
    return 2 * 128 * 128 * 9 * 128 * 256 / best


def table(args: argparse.Namespace) -> None:
    console = Console(width=110)
    flops = sum(needs(VARIANTS[args.variant], torch.float32).flops)
    peaks = {half: convolution_peak(torch.bfloat16 if half else torch.float32) for half in (False, True)}
    library = kernels.library()
    console.print(
        f"{args.variant}, {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{Path(library._name).stem if library else 'no kernels'}; "
        f"convolutions reach {peaks[False] / 1e9:.0f} (fp32) and {peaks[True] / 1e9:.0f} (bf16) GFLOP/s"
    )
    for size in args.sizes:
        width, height = map(int, size.split("x"))
        rows = {}
        for way in WAYS:
            if way not in args.skip:
                rows[way] = child([sys.executable, __file__, "--child", way, size, *common(args)])
        if args.official and args.batch == 1 and args.device == "cpu":
            script = [args.jax_python, HERE / "official_jax.py", args.official, args.variant, size]
            rows[OFFICIAL] = child(script)
        reference = rows.get(OFFICIAL, rows.get(PLAIN, next(iter(rows.values()))))
        columns = ("", "first s", "warm s", "speed", "GFLOP/s", "of the floor", "peak GB")
        result = Table(*columns, title=f"{size}, batch {args.batch}", title_justify="left")
        for way, row in rows.items():
            rate = flops * width * height * args.batch / row["warm"]
            half = way.endswith("bf16")
            result.add_row(
                way,
                f"{row['first']:.2f}",
                f"{row['warm']:.2f}",
                f"{reference['warm'] / row['warm']:.2f}x",
                f"{rate / 1e9:.0f}",
                f"{rate / peaks[half]:.0%}",
                f"{row['peak']:.2f}",
            )
        console.print(result)


def common(args: argparse.Namespace) -> list[str]:
    return ["--variant", args.variant, "--batch", str(args.batch), "--device", args.device]


def child(command: list[object]) -> dict[str, float]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def profile(size: str, variant: str) -> None:
    """Print seconds by kind of work, in fp32 and bf16."""
    width, height = map(int, size.split("x"))
    model = Maxim(VARIANTS[variant]).eval()
    image = torch.rand(1, 3, height, width)
    kinds = {
        "convolutions": ("mkldnn_convolution", "_convolution"),
        "1x1 projections": ("addmm", "mkldnn_linear", "mm"),
        "copies, conversions": ("copy_", "cat", "fill_"),
        "pointwise": ("add", "addcmul", "mul", "leaky_relu", "sum", "sigmoid", "gelu", "upsample_bilinear2d"),
    }
    call = kernels.call

    def timed_call(name: str, *args: object) -> None:
        with torch.profiler.record_function(f"kernel {name}"):
            call(name, *args)

    kernels.call = timed_call
    seconds: dict[str, list[float]] = {}
    ways = [way for way in WAYS if way.startswith("maximir") and "no kernels" not in way]
    for column, way in enumerate(ways):
        restore(way, model, image)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            total = restore(way, model, image)
        rest = total
        for event in profiler.key_averages():
            name = event.key.removeprefix("aten::")
            kind = (
                name
                if name.startswith("kernel")
                else next((k for k, ns in kinds.items() if name in ns), None)
            )
            if kind is not None:
                spent = event.self_cpu_time_total / 1e6
                seconds.setdefault(kind, [0.0, 0.0])[column] += spent
                rest -= spent
        seconds.setdefault("the rest: Python, calls, allocation", [0.0, 0.0])[column] = rest
        seconds.setdefault("total", [0.0, 0.0])[column] = total
    result = Table("", *(f"{way} s" for way in ways), title=f"{variant}, {size}", title_justify="left")
    for kind, (exact, half) in sorted(seconds.items(), key=lambda item: (item[0] == "total", -item[1][0])):
        result.add_row(kind, f"{exact:.2f}", f"{half:.2f}")
    Console(width=100).print(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", default=["256x256", "1024x1024"])
    parser.add_argument("--variant", default="S-2", choices=VARIANTS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--official", help="clone of the official repository")
    parser.add_argument("--jax-python", default="python", help="interpreter with jax, flax, einops")
    parser.add_argument("--skip", action="append", default=[], help="a row to leave out")
    parser.add_argument("--profile", metavar="WIDTHxHEIGHT")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(*args.child[:1], args.variant, args.child[1], args.batch, args.device)
    elif args.profile:
        profile(args.profile, args.variant)
    else:
        table(args)
