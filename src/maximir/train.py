"""Training: a recipe, folders of photographs and a run folder in; weights, logs and sample pictures out.

A run folder holds `recipe.json`, `log.jsonl`, `tensorboard/`, `samples/`, `states/` (everything needed to go
on, the two newest) and, when done, `model.safetensors` (the moving average of the weights).

Exact resumption: samples depend on the step only (see `data`), the random numbers of dropout are seeded by
the step, and a state holds weights, moving average and the optimisers' moments (see `run`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from maximir import checkpoint
from maximir.data import DegradedCrops, RunSampler, find_images, load_photographs, load_rgb, to_tensor
from maximir.degradations import DEGRADATIONS, gaussian_noise
from maximir.errors import MaximirError
from maximir.files import reason, write_atomically
from maximir.metrics import psnr
from maximir.pixels import UINT8, from_unit, to_unit
from maximir.recipe import Recipe
from maximir.restore import choose_device, restore_batch
from maximir.run import Run, schedule

VALIDATION_SIGMA = 25.0


@dataclass(frozen=True)
class Every:
    """How often, in steps."""

    log: int = 50
    validate: int = 1000
    save: int = 500


class Log:
    """`log.jsonl`, TensorBoard where it is installed, and lines on the terminal."""

    def __init__(self, folder: Path, step: int, report: Callable[[str], None]) -> None:
        """Go on after `step`: what a killed run has logged beyond it is dropped."""
        self.report, self.folder = report, folder
        path = folder / "log.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_atomically(path, "".join(kept).encode())
        self.file: TextIO = path.open("a", buffering=1)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
            report("TensorBoard is not installed (pip install 'maximir[train]'): only log.jsonl is written")
        else:
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        self.report(f"step {step}  " + "  ".join(f"{name} {value:.5g}" for name, value in values.items()))

    def picture(self, step: int, picture: np.ndarray) -> None:
        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        Image.fromarray(picture).save(samples / f"step-{step:08d}.png")
        if self.board is not None:
            self.board.add_image("noisy, restored, clean", picture, step, dataformats="HWC")

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def validate(run: Run, images: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """How the averaged weights do on clean images with float noise, not clipped, seeded.

    Returns:
        The mean RGB PSNR of the rounded results, and a picture of the first: noisy, restored, clean.
    """
    scores: list[float] = []
    for number, clean in enumerate(images):
        rng = np.random.default_rng([int(VALIDATION_SIGMA), number])
        noisy = gaussian_noise(to_unit(clean), VALIDATION_SIGMA, rng)
        with run.autocast():
            output = restore_batch(run.average, to_tensor(noisy)[None].to(run.device))[0]
        restored = from_unit(output.permute(1, 2, 0).cpu().numpy(), UINT8)
        scores.append(psnr(restored, clean))
        if number == 0:
            picture = np.concatenate([from_unit(noisy, UINT8), restored, clean], axis=1)
    return float(np.mean(scores)), picture


def train(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    validation: Path | None = None,
    device: str = "auto",
    workers: int = 0,
    every: Every = Every(),
    report: Callable[[str], None] = print,
) -> Path:
    """Train, or go on with the run in `out`; the path of the finished model.

    Args:
        recipe: what to do. A run that is resumed must have been started with the same.
        data: folders of clean photographs.
        out: the run's folder, made if missing.
        validation: folder of clean images to measure on while training (sigma 25).
        device: "auto", "cpu" or "cuda".
        workers: processes that prepare samples; the result does not depend on it.

    Raises:
        MaximirError: no data, a recipe other than the run's, a loss that is not finite, a full disk.
    """
    place = choose_device(device)
    largest = max(phase.patch for phase in recipe.phases)
    photographs = load_photographs(data, recipe.scales, largest, report)
    held_out = [] if validation is None else [load_rgb(path) for path in find_images([validation])]
    report(f"{len(photographs)} training images, {len(held_out)} validation images, {place}")
    try:
        run = Run(recipe, out, place)
        run.resume(report)
        batches = DataLoader(
            DegradedCrops(photographs, DEGRADATIONS[recipe.degradation], recipe.seed),
            batch_sampler=RunSampler(run.step, recipe.steps, recipe.batch_and_patch),
            num_workers=workers,
            pin_memory=place.type == "cuda",
        )
        log = Log(out, run.step, report)
        try:
            fit(run, batches, held_out, log, every)
        finally:
            log.close()
        finished = out / "model.safetensors"
        checkpoint.save_model(run.average, finished, metadata={"recipe": recipe.to_dict(), "steps": run.step})
        return finished
    except OSError as error:
        raise MaximirError(f"{error.filename or out}: {reason(error)}") from error


def fit(
    run: Run, batches: Iterable[tuple[Tensor, Tensor]], held_out: list[np.ndarray], log: Log, every: Every
) -> None:
    """Step through the batches; log, save and validate on the way and at the end."""
    recipe = run.recipe
    losses: list[Tensor] = []
    seconds, pixels = 0.0, 0
    clock = time.monotonic()
    for degraded, clean in batches:
        loss, norm = run.train_step(
            degraded.to(run.device, non_blocking=True), clean.to(run.device, non_blocking=True)
        )
        losses.append(loss)
        seconds += time.monotonic() - clock
        pixels += degraded.shape[0] * degraded.shape[2] * degraded.shape[3]
        last = run.step == recipe.steps
        if last or run.step % every.log == 0:
            log.scalars(
                run.step,
                {
                    "loss": torch.stack(losses).mean().item(),
                    "gradient_norm": norm.item(),
                    "learning_rate": recipe.learning_rate * schedule(recipe, run.step - 1),
                    "seconds_per_step": seconds / len(losses),
                    "hours_left": seconds / pixels * recipe.pixels_left(run.step) / 3600,
                },
            )
            losses, seconds, pixels = [], 0.0, 0
        if last or run.step % every.save == 0:
            run.save()
        if held_out and (last or run.step % every.validate == 0):
            score, picture = validate(run, held_out)
            log.scalars(run.step, {"psnr_sigma25": score})
            log.picture(run.step, picture)
        clock = time.monotonic()
