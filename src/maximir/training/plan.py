"""`maximir train --plan`: estimate a run's time and memory here from a few steps of each phase."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maximir.restoring.restorer import choose_device
from maximir.sizes import in_words as bytes_in_words
from maximir.training.data import Place
from maximir.training.distributed import Processes
from maximir.training.recipe import Phase, Recipe
from maximir.training.run import Execution, Run
from maximir.training.samples import PhasedSamples, Sample, collate
from maximir.training.train import load_sources

TIMED_STEPS = 3


@dataclass(frozen=True)
class PhasePlan:
    """Measured time and memory of a phase.

    Attributes:
        steps: number of steps in the phase.
        step_seconds: seconds per step.
        sample_seconds: seconds for one process to make one batch.
        memory: peak memory in bytes so far, of this process (CUDA: of the device).
    """

    phase: Phase
    steps: int
    step_seconds: float
    sample_seconds: float
    memory: int

    def seconds(self, workers: int) -> float:
        """Estimate the time of all steps; loader processes make batches during them, else in between."""
        if workers == 0:
            return self.steps * (self.step_seconds + self.sample_seconds)
        return self.steps * max(self.step_seconds, self.sample_seconds / workers)


def plan_phases(
    recipe: Recipe,
    data: Sequence[Place],
    pairs: Sequence[Place],
    execution: Execution,
    report: Callable[[str], None],
) -> list[PhasePlan]:
    """Time a few steps of each phase of a recipe on the given data; no result is kept.

    Raises:
        MaximirError: for the same reasons as `train`.
    """
    sources, _ = load_sources(recipe, data, pairs, report)
    samples = PhasedSamples(recipe, sources)
    plans = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(recipe, Path(folder), Processes(choose_device(execution.device)), execution)
        begin = 0
        for number, phase in enumerate(recipe.phases):
            end = math.ceil(phase.until * recipe.steps)
            times: list[tuple[float, float]] = []
            for trial in range(1 + TIMED_STEPS):  # the first warms up
                clock = time.monotonic()
                batch = collate(
                    [samples[trial * phase.batch + k, phase.patch, number] for k in range(phase.batch)]
                )
                made = time.monotonic()
                take_step(run, batch)
                times.append((time.monotonic() - made, made - clock))
            step_seconds, sample_seconds = (
                sorted(column)[TIMED_STEPS // 2] for column in zip(*times[1:], strict=True)
            )
            plans.append(PhasePlan(phase, end - begin, step_seconds, sample_seconds, peak_memory(run.device)))
            begin = end
    return plans


def take_step(run: Run, batch: Sample) -> None:
    degraded, clean, lessons = (x.to(run.device) for x in (batch.degraded, batch.clean, batch.lessons))
    run.train_step(degraded, clean, batch.origins, lessons)
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes, or 0 where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def print_plan(recipe: Recipe, data: Sequence[Place], pairs: Sequence[Place], execution: Execution) -> None:
    """Print the plan as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    from maximir.network.model import Maxim
    from maximir.progress import in_words

    with torch.device("meta"):
        parameters = sum(p.numel() for p in Maxim(recipe.model).parameters())
    plans = plan_phases(recipe, data, pairs, execution, print)
    table = Table("crops", "steps", "s/step", "images/s", "memory", "time")
    for plan in plans:
        seconds = plan.seconds(execution.workers)
        table.add_row(
            f"{plan.phase.batch} x {plan.phase.patch}²",
            f"{plan.steps:,}",
            f"{seconds / max(1, plan.steps):.3g}",
            f"{plan.phase.batch * plan.steps / max(seconds, 1e-9):.3g}",
            bytes_in_words(plan.memory) if plan.memory else "unknown",
            in_words(seconds),
        )
    console = Console()
    console.print(
        f"{recipe.task}: {parameters / 1e6:.2f} M parameters, {recipe.steps:,} steps, {recipe.precision}"
    )
    console.print(table)
    total = sum(plan.seconds(execution.workers) for plan in plans)
    console.print(f"about {in_words(total)} in all on this machine, one process, without validation")
