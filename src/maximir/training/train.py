"""Train a recipe on folders of photographs; write weights, logs and sample pictures to a run folder.

A run folder holds `recipe.json`, `log.jsonl`, `tensorboard/`, `samples/`, `states/` (the two newest states,
to resume from) and, when done, `model.safetensors` (the moving average of the weights).

Resumption is exact: samples depend only on the step (see `samples`), dropout's random numbers are seeded by
the step, and a state holds the weights, their moving average and the optimisers' moments (see `run`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maximir.errors import MaximirError, UsageError
from maximir.files import JsonLines, reason, write_atomically
from maximir.models import checkpoint
from maximir.restoring.isolation import unaffected
from maximir.training.data import Place, Scene, check_pairs, find_pairs, find_scenes, split
from maximir.training.distributed import join
from maximir.training.loader import load_batches
from maximir.training.recipe import EVEN, PAIRS, Recipe
from maximir.training.run import DEFAULT, Execution, Run, locked, schedule
from maximir.training.samples import (
    CLEAN,
    DEPTH,
    Sample,
    Views,
    kind_of,
    views,
)
from maximir.training.validation import Trial, make_trials, validate


@dataclass(frozen=True)
class Every:
    """Intervals, in steps."""

    log: int = 50
    validate: int = 500
    save: int = 250


def step_of(line: str) -> float:
    """Return the step of a log line; infinity if the line is incomplete, as after a power cut."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class Log:
    """Log of a run: `log.jsonl`, TensorBoard if it is installed, and lines on the terminal."""

    def __init__(self, folder: Path, step: int, report: Callable[[str], None]) -> None:
        """Continue the log after `step`, and drop later lines of an interrupted run."""
        self.report, self.folder = report, folder
        path = folder / "log.jsonl"
        lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
        kept = [line for line in lines if step_of(line) <= step]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
        self.lines = JsonLines(path)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
            report("TensorBoard is not installed (pip install 'maximir[train]'): only log.jsonl is written")
        else:
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.lines.add({"step": step, **values})
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        self.report(f"step {step}  " + "  ".join(f"{name} {value:.5g}" for name, value in values.items()))

    def picture(self, step: int, picture: np.ndarray) -> None:
        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        Image.fromarray(picture).save(samples / f"step-{step:08d}.png")
        if self.board is not None:
            self.board.add_image("degraded, restored, clean", picture, step, dataformats="HWC")

    def close(self) -> None:
        self.lines.close()
        if self.board is not None:
            self.board.close()


def load_sources(
    recipe: Recipe, data: Sequence[Place], pairs: Sequence[Place], report: Callable[[str], None]
) -> tuple[dict[str, Views], list[Scene]]:
    """Return the sources of the recipe's mixture, by kind, and the held-out pairs.

    Args:
        report: called with a message for each image that cannot be used.

    Raises:
        MaximirError: data that the mixture needs is missing, or data is given that it does not use.
    """
    kinds = {kind_of(name) for name in recipe.mixed} - {EVEN}
    uses = (("--data", data, kinds - {PAIRS}), ("--pairs", pairs, kinds & {PAIRS}))
    mixture = f"the recipe's mixture ({', '.join(recipe.mixed)})"
    if lacking := [option for option, given, wanted in uses if wanted and not given]:
        raise UsageError(f"{mixture} needs {' and '.join(lacking)}")
    if useless := [option for option, given, wanted in uses if given and not wanted]:
        raise UsageError(f"{mixture} does not use {' and '.join(useless)}")
    smallest = max(phase.patch for phase in recipe.phases)
    clean, set_aside = split(find_scenes(data), recipe.hold_out)
    paired, held_out = split(check_pairs(find_pairs(pairs), report), recipe.hold_out)
    apart = [*set_aside, *held_out]
    if missing := [repr(pattern) for pattern in recipe.hold_out if not split(apart, [pattern])[1]]:
        report(f"hold_out: no scene's name matches {', '.join(missing)}")
    memory = available_memory() // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    sources = {}
    for kind in sorted(kinds):
        scenes = {CLEAN: clean, DEPTH: [scene for scene in clean if scene.depth], PAIRS: paired}[kind]
        if not scenes:
            why = "all of them are held out"
            if kind == DEPTH and clean:
                why = "add depth maps, NAME_depth.png beside NAME.png or NAME_target.png"
            raise MaximirError(f"no training images for {kind_names(recipe, kind)}: {why}")
        scales = recipe.pair_scales if kind == PAIRS else recipe.scales
        sources[kind] = Views(views(scenes, scales, smallest, report, kind=kind), memory, report)
        memory -= sources[kind].bytes
    return sources, held_out


def kind_names(recipe: Recipe, kind: str) -> str:
    return ", ".join(name for name in recipe.mixed if kind_of(name) == kind)


def available_memory() -> int:
    """Return the available memory in bytes; 4 GB if psutil, which training does not require, is missing."""
    try:
        from maximir.engine.machine import available
    except ImportError:
        return 4 << 30
    return available()


@unaffected(gradients=True)
def train(
    recipe: Recipe,
    data: Sequence[Place],
    out: Path,
    *,
    pairs: Sequence[Place] = (),
    validation: Sequence[Place] = (),
    execution: Execution = DEFAULT,
    every: Every = Every(),
    report: Callable[[str], None] = print,
) -> Path:
    """Train, or resume the run in `out`; return the path of the finished model.

    Args:
        recipe: settings of the run. A resumed run needs the recipe it was started with.
        data: local or remote folders or tar shards of clean photographs; see `maximir.training.data`.
        pairs: folders, shards or lists of pairs.
        out: the run's folder, made if missing.
        validation: folders of clean images to validate on while training, besides the held-out pairs.
        execution: execution settings; they may change when a run is resumed.

    Raises:
        MaximirError: there is no data, the run in `out` has another recipe, the loss is not finite, or the
            disk is full.
    """
    finished = out / "model.safetensors"
    with join(execution.device) as processes:
        tell = report if processes.first else lambda line: None
        run = Run(recipe, out, processes, execution)
        sources, held_out = load_sources(recipe, data, pairs, tell)
        run.data_digest = " ".join(source.digest() for source in sources.values())
        trials = make_trials(recipe, held_out, validation)
        counts = ", ".join(f"{source.count()} {kind}" for kind, source in sources.items())
        tell(
            f"training images: {counts}; {len(trials)} to validate with; "
            f"{processes.count} x {processes.device}"
        )
        try:
            with locked(out) if processes.first else contextlib.nullcontext():
                run.begin(tell)
                log = Log(out, run.step, tell) if processes.first else None
                try:
                    fit(run, load_batches(recipe, sources, run), trials, log, every, report)
                finally:
                    if log is not None:
                        log.close()
                model = run.averaged()
                if processes.first:
                    # File names only, without this machine's folders.
                    begun_with = {"init": Path(recipe.init).name, "teacher": Path(recipe.teacher).name}
                    facts = {"recipe": recipe.to_dict() | begun_with, "steps": run.step}
                    checkpoint.save_model(model, finished, metadata=facts)
                tell(f"wrote {finished}")
                processes.wait()
        except OSError as error:
            raise MaximirError(f"{error.filename or out}: {reason(error)}") from error
    return finished


def fit(
    run: Run,
    batches: Iterable[Sample],
    trials: Sequence[Trial],
    log: Log | None,
    every: Every,
    report: Callable[[str], None],
) -> None:
    """Train on the batches; log, save and validate at intervals and at the end.

    Args:
        log: None in all processes except the first.
        report: prints a line, in any process.
    """
    recipe = run.recipe
    losses: list[Tensor] = []
    skipped: set[str] = set()
    seconds, pixels = 0.0, 0
    clock = time.monotonic()
    for batch in batches:
        for message in set(batch.skipped) - skipped:
            report(f"skipped {message}")  # in the process that found it
        skipped.update(batch.skipped)
        degraded, clean, lessons = (
            tensor.to(run.device, non_blocking=True)
            for tensor in (batch.degraded, batch.clean, batch.lessons)
        )
        loss, norm = run.train_step(degraded, clean, batch.origins, lessons)
        if log is not None:
            losses.append(loss)
        seconds += time.monotonic() - clock
        pixels += recipe.pixels(run.step - 1)
        last = run.step == recipe.steps
        logs = last or run.step % every.log == 0
        unread = run.processes.total(len(skipped)) if logs else 0
        if log is not None and logs:
            values = {
                "loss": torch.stack(losses).mean().item(),
                "gradient_norm": norm.item(),
                "learning_rate": recipe.learning_rate * schedule(recipe, run.step - 1),
                "seconds_per_step": seconds / len(losses),
                "hours_left": seconds / pixels * recipe.pixels_left(run.step) / 3600,
            }
            log.scalars(run.step, values | ({"skipped_images": unread} if unread else {}))
            losses, seconds, pixels = [], 0.0, 0
        if last or run.step % every.save == 0:
            run.save()
        if trials and (last or run.step % every.validate == 0):
            model = run.averaged()
            if log is not None:
                scores, picture = validate(model, trials, run.features, run.device)
                log.scalars(run.step, scores)
                log.picture(run.step, picture)
        clock = time.monotonic()
