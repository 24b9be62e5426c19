"""Measure the network on a GPU: speed, memory, share of the bandwidth, a training step, exactness.

    benchmarks/gpu.sh [--device cuda] [--seconds 690] [--variant S-2]

Prints Markdown tables as it goes and stops measuring when the time is used up; rows that did not run say so.
The most useful rows come first, `torch.compile`, which may compile for minutes, last. With `--device cpu
--small` every line runs on a processor within minutes (compiled without Inductor): so the script is tried
without a GPU. Needs only torch and numpy.

The bandwidth share compares the time with that of moving the bytes that the plain network's operators read
and write, each once (counted on the meta device), at the rate of a large copy. More than 100% means that less
is moved: operators were fused, or their operands came from a cache.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from maximir.engine import network as engine
from maximir.engine.sweeps import STRIP_BYTES, Streaming
from maximir.network.config import VARIANTS
from maximir.network.model import Maxim
from maximir.ops import kernels
from maximir.training.losses import restoration_loss
from maximir.training.optimizers import make_optimizers

GPU_STRIPS = 16  # times as long as on a processor, as maximir.restoring.memory has it
VIEWS = ("view", "_unsafe_view", "permute", "expand", "slice", "select", "transpose", "t", "detach", "alias")


class Traffic(TorchDispatchMode):
    """Count the bytes of all operands and results of operators; views move nothing."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ not in VIEWS:
            flat = torch.utils._pytree.tree_leaves((args, kwargs, result))
            self.total += sum(each.nbytes for each in flat if isinstance(each, torch.Tensor))
        return result


class Bench:
    """One model on one device, with a deadline for all measurements.

    Args:
        seconds: time for everything.
    """

    def __init__(self, device: str, variant: str, seconds: float, backend: str) -> None:
        self.backend = backend  # of torch.compile
        self.device = torch.device(device)
        self.variant = variant
        self.ends = time.perf_counter() + seconds
        torch.manual_seed(0)
        self.model = Maxim(VARIANTS[variant]).eval().requires_grad_(False)
        self.original = {name: each.clone() for name, each in self.model.state_dict().items()}
        self.model.to(self.device)
        self.cuda = self.device.type == "cuda"
        self.bandwidth = self.copy_rate()

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def copy_rate(self) -> float:
        """Return bytes/s of a copy, reads and writes counted."""
        source = torch.empty((1 << 30 if self.cuda else 1 << 26) // 4, device=self.device)
        target = torch.empty_like(source)
        best = min(self.time(lambda: target.copy_(source)) for _ in range(6))
        return 2 * source.nbytes / best

    def time(self, call: Callable[[], object]) -> float:
        self.sync()
        begun = time.perf_counter()
        call()
        self.sync()
        return time.perf_counter() - begun

    def best(self, call: Callable[[], object], repeats: int = 5) -> tuple[float, float, float]:
        """Return (first s, best s of the following, peak GB of device memory)."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        first = self.time(call)
        warm = first
        for _ in range(repeats):
            if time.perf_counter() + warm > self.ends:
                break
            warm = min(warm, self.time(call))
        return first, warm, torch.cuda.max_memory_allocated() / 1e9 if self.cuda else 0.0

    def row(self, name: str, cells: Callable[[], list[str]], columns: int) -> None:
        """Print one row of a table; a failure is its content, and the next row follows."""
        if time.perf_counter() > self.ends:
            values = ["not reached"]
        else:
            try:
                values = cells()
            except torch.cuda.OutOfMemoryError:
                values = ["out of memory"]
            except Exception as error:  # the other rows are worth having
                values = [f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"]
        print(f"| {name} | " + " | ".join(values + [""] * (columns - len(values))) + " |", flush=True)

    # Inference

    def ways(self, compiled: bool) -> Iterator[tuple[str, Callable[[torch.Tensor], object]]]:
        """Yield each way of a forward pass as (name, call)."""
        for half in (False, True):
            precision = "bf16" if half else "fp32"
            if compiled:
                model = torch.compile(self.model, backend=self.backend)
                yield f"plain, torch.compile, {precision}", self.plain(model, half)
                continue
            yield f"plain, {precision}", self.plain(self.model, half)
            features = torch.bfloat16 if half else torch.float32
            yield f"engine, {precision}", lambda x, f=features: self.engine(x, f)

    def plain(self, model: Callable[[torch.Tensor], object], half: bool) -> Callable[[torch.Tensor], object]:
        def call(x: torch.Tensor) -> object:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half), kernels.allow(False):
                return model(x)

        return call

    def engine(self, x: torch.Tensor, features: torch.dtype) -> torch.Tensor:
        strip = STRIP_BYTES * (GPU_STRIPS if self.cuda else 1)
        return engine.run(self.model, x, Streaming(strip_bytes=strip, features=features))

    def costs(self, batch: int, height: int, width: int) -> tuple[int, int]:
        """Return (bytes of traffic in fp32, FLOPs) of the plain network; both grow with the pixels."""
        with torch.device("meta"):
            model = Maxim(VARIANTS[self.variant]).eval()
            x = torch.empty(1, 3, 256, 256)
        with kernels.allow(False), torch.no_grad():
            with Traffic() as traffic:
                model(x)
            with FlopCounterMode(display=False) as flops:
                model(x)
        times = batch * height * width / 256**2
        return round(traffic.total * times), round(flops.get_total_flops() * times)

    def inference(self, title: str, batch: int, height: int, width: int, compiled: bool = False) -> None:
        moved, flops = self.costs(batch, height, width)
        print(f"\n{title}: {self.variant}, batch {batch}, {width} x {height}\n")
        print("| | first s | s | megapixels/s | TFLOP/s | of the bandwidth | peak GB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        x = torch.rand(batch, 3, height, width, device=self.device)
        for name, call in self.ways(compiled):

            def cells(name: str = name, call: Callable[[torch.Tensor], object] = call) -> list[str]:
                with torch.inference_mode(not compiled), torch.no_grad():
                    first, warm, peak = self.best(lambda: call(x))
                share = moved * (0.5 if name.endswith("bf16") else 1) / self.bandwidth / warm
                speed = batch * height * width / 1e6 / warm
                return [
                    f"{first:.2f}",
                    f"{warm:.4f}",
                    f"{speed:.2f}",
                    f"{flops / warm / 1e12:.1f}",
                    f"{share:.0%}",
                    f"{peak:.2f}",
                ]

            self.row(name, cells, 6)

    # Exactness

    def exactness(self, side: int) -> None:
        """Compare each way with the plain network in fp32 on the processor."""
        x = torch.rand(1, 3, side, side)
        reference = Maxim(VARIANTS[self.variant]).eval()
        reference.load_state_dict(self.original)
        with torch.inference_mode(), kernels.allow(False):
            expected = reference(x)[-1][-1]
        print(f"\nDifference from the plain network on the processor in fp32, {side} x {side}")
        print("(random weights; relative to the largest value and to the root mean square)\n")
        print("| | largest | mean, dB |\n| --- | --- | --- |")
        for name, call in self.ways(compiled=False):

            def cells(call: Callable[[torch.Tensor], object] = call) -> list[str]:
                with torch.inference_mode():
                    result = call(x.to(self.device))
                result = result if isinstance(result, torch.Tensor) else result[-1][-1]  # type: ignore[index]
                difference = result.float().cpu() - expected
                largest = difference.abs().max() / expected.abs().max()
                mean = difference.square().mean().clamp_min(1e-20) / expected.square().mean()
                return [f"{largest:.1e}", f"{-10 * mean.log10():.1f}"]

            self.row(name, cells, 2)

    # Training

    def training(self, patch: int, batch: int, compiled: bool) -> None:
        print(f"\nA training step: S-1, {batch} crops of {patch} x {patch}, loss, gradients and Muon\n")
        print("| | first s | s | images/s | peak GB |\n| --- | --- | --- | --- | --- |")
        x, target = torch.rand(2, batch, 3, patch, patch, device=self.device)
        for half in (False, True):

            def cells(half: bool = half) -> list[str]:
                model = Maxim(VARIANTS["S-1"]).train().to(self.device)
                optimizers = make_optimizers(model, "muon", 1e-4, (0.9, 0.999), 1e-3)
                forward = torch.compile(model, backend=self.backend) if compiled else model

                def step() -> None:
                    model.zero_grad(set_to_none=True)
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                        outputs = forward(x)
                    restoration_loss(outputs, target).backward()  # type: ignore[no-untyped-call]
                    for optimizer in optimizers:
                        optimizer.step()

                first, warm, peak = self.best(step)
                return [f"{first:.2f}", f"{warm:.3f}", f"{batch / warm:.1f}", f"{peak:.2f}"]

            self.row(("torch.compile, " if compiled else "") + ("bf16" if half else "fp32"), cells, 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--variant", default="S-2", choices=VARIANTS)
    parser.add_argument("--seconds", type=float, default=690.0)
    parser.add_argument("--small", action="store_true", help="small images: to try the script")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    given = parser.parse_args()
    with contextlib.suppress(AttributeError):
        torch.set_float32_matmul_precision("highest")  # fp32 means fp32
    bench = Bench(given.device, given.variant, given.seconds, "aot_eager" if given.small else "inductor")
    name = torch.cuda.get_device_name() if bench.cuda else "processor"
    print(f"{name}, torch {torch.__version__}, copies at {bench.bandwidth / 1e9:.0f} GB/s")
    small, compiles = given.small, not given.no_compile
    bench.exactness(64 if small else 256)
    sizes = {
        "Small images": (1, 64, 64) if small else (1, 256, 256),
        "A batch": (2, 64, 64) if small else (16, 256, 256),
        "1 megapixel": (1, 128, 64) if small else (1, 1024, 1024),
        "12 megapixels": (1, 128, 128) if small else (1, 3008, 4032),
        "24 megapixels": (1, 128, 192) if small else (1, 4032, 6016),
    }
    for title, size in sizes.items():
        bench.inference(title, *size)
    bench.training(64 if small else 256, 2 if small else 8, compiled=False)
    if compiles:
        for title in ("Small images", "A batch"):
            bench.inference(f"{title}, compiled", *sizes[title], compiled=True)
        bench.training(64 if small else 256, 2 if small else 8, compiled=True)


if __name__ == "__main__":
    main()
