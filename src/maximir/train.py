"""Training: a recipe, folders of photographs and a run folder in; weights, logs and sample pictures out.

A run folder holds `recipe.json`, `log.jsonl`, `tensorboard/`, `samples/`, `states/` (everything needed to go
on, the two newest) and, when done, `model.safetensors` (the moving average of the weights).

Exact resumption: samples depend on the step only (see `data`), the random numbers of dropout are seeded by
the step, and a state holds weights, moving average and Adam's moments.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from maximir import checkpoint
from maximir.data import DegradedCrops, RunSampler, find_images, load_photographs, load_rgb, to_tensor
from maximir.degradations import DEGRADATIONS, gaussian_noise
from maximir.errors import MaximirError, UsageError
from maximir.files import reason, write_atomically
from maximir.losses import restoration_loss
from maximir.metrics import psnr
from maximir.model import Maxim
from maximir.optimizers import make_optimizers
from maximir.pixels import UINT8, from_unit
from maximir.recipe import Recipe
from maximir.restore import choose_device, restore_batch

KEPT_STATES = 2
VALIDATION_SIGMA = 25.0


@dataclass(frozen=True)
class Every:
    """How often, in steps."""

    log: int = 50
    validate: int = 1000
    save: int = 500


def schedule(recipe: Recipe, step: int) -> float:
    """Factor on the learning rates: linear warm-up from 0, then cosine decay to the final one."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    final = recipe.final_learning_rate / recipe.learning_rate
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


class Run:
    """A network in training: weights, their moving average, Adam, and how many steps were done."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        torch.manual_seed(recipe.seed)
        self.model = Maxim(recipe.model).to(device).train()
        if recipe.start_as_identity:
            self.model.zero_outputs_()
        self.average = Maxim(recipe.model).to(device).eval().requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.optimizers = make_optimizers(
            self.model, recipe.optimizer, recipe.learning_rate, recipe.betas, recipe.muon_learning_rate
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        self.step = 0

    def train_step(self, degraded: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """One optimiser step; loss and gradient norm before clipping."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(recipe, self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            outputs = self.model(degraded)
        loss = restoration_loss(outputs, clean)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        if not torch.isfinite(norm):
            raise MaximirError(
                f"step {self.step}: the loss is {loss.item()} and the gradient's norm {norm.item()}. The "
                f"states in {self.folder / 'states'} are from before; a new run with a lower learning rate "
                "may do better"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(recipe.ema, self.step / (self.step + 10))  # a young average forgets quickly
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        return loss.detach(), norm

    # --- states -------------------------------------------------------------------------------------

    def state_path(self, step: int) -> Path:
        return self.folder / "states" / f"step-{step:08d}.safetensors"

    def save(self) -> None:
        """Write a state, then drop all but the newest ones."""
        tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in self.model.named_parameters()}
        tensors |= {f"average.{name}": value for name, value in self.average.named_parameters()}
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                tensors |= {f"{key}.{names[parameter]}": value for key, value in moments.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"step": str(self.step), "recipe": json.dumps(self.recipe.to_dict())}
        checkpoint.write_tensors(self.state_path(self.step), tensors, metadata)
        for path in self.states()[:-KEPT_STATES]:
            path.unlink()

    def states(self) -> list[Path]:
        return sorted((self.folder / "states").glob("step-*.safetensors"))

    def resume(self, report: Callable[[str], None]) -> None:
        """Continue from the newest whole state; a damaged one is reported and the one before taken."""
        for path in reversed(self.states()):
            try:
                metadata, tensors = checkpoint.read_tensors(path)
                step = int(metadata["step"])
                same = json.loads(metadata["recipe"]) == json.loads(json.dumps(self.recipe.to_dict()))
            except (MaximirError, KeyError, ValueError, OSError) as error:
                damaged = path.replace(path.with_suffix(".damaged"))  # or it would count as the newest
                report(f"{damaged}: damaged, trying the one before ({error})")
                continue
            if not same:
                raise MaximirError(f"{path}: is of another recipe; use a new folder")
            self._restore(tensors)
            self.step = step
            report(f"resumed from {path}")
            return

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.average.named_parameters():
            parameter.copy_(tensors.pop(f"average.{name}"))
        parameters = dict(self.model.named_parameters())
        for name, parameter in parameters.items():
            parameter.copy_(tensors.pop(f"model.{name}"))
        owners = {p: o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for label, value in tensors.items():
            key, name = label.split(".", 1)
            parameter = parameters[name]
            owners[parameter].state[parameter][key] = value.to(parameter.device)


class Log:
    """`log.jsonl`, TensorBoard where it is installed, and lines on the terminal."""

    def __init__(self, folder: Path, step: int, report: Callable[[str], None]) -> None:
        """Go on after `step`: what a killed run has logged beyond it is dropped."""
        self.report = report
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
        if self.board is not None:
            self.board.add_image("noisy, restored, clean", picture, step, dataformats="HWC")

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def validate(
    model: Maxim, images: list[np.ndarray], sigma: float, *, precision: str = "fp32", device: torch.device
) -> tuple[float, list[np.ndarray]]:
    """Mean RGB PSNR of the rounded results for float noise, not clipped, seeded; and the results (uint8)."""
    scores, restored = [], []
    for number, clean in enumerate(images):
        rng = np.random.default_rng([int(sigma), number])
        noisy = gaussian_noise(clean.astype(np.float32) / 255, sigma, rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = restore_batch(model, to_tensor(noisy)[None].to(device))[0]
        image = from_unit(output.permute(1, 2, 0).cpu().numpy(), UINT8)
        restored.append(np.concatenate([from_unit(noisy, UINT8), image, clean], axis=1))
        scores.append(psnr(image, clean))
    return float(np.mean(scores)), restored


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
        return run_in(recipe, photographs, out, held_out, place, workers, every, report)
    except OSError as error:
        raise MaximirError(f"{error.filename or out}: {reason(error)}") from error


def run_in(
    recipe: Recipe,
    photographs: list[np.ndarray],
    out: Path,
    held_out: list[np.ndarray],
    place: torch.device,
    workers: int,
    every: Every,
    report: Callable[[str], None],
) -> Path:
    """What `train` does once the data are there."""
    for folder in (out / "states", out / "samples"):
        folder.mkdir(parents=True, exist_ok=True)
    check_same_recipe(recipe, out / "recipe.json")
    run = Run(recipe, out, place)
    run.resume(report)
    dataset = DegradedCrops(photographs, DEGRADATIONS[recipe.degradation], recipe.seed)

    def batch_and_patch(step: int) -> tuple[int, int]:
        phase = recipe.phase(step)
        return phase.batch, phase.patch

    loader = DataLoader(
        dataset,
        batch_sampler=RunSampler(run.step, recipe.steps, batch_and_patch),
        num_workers=workers,
        pin_memory=place.type == "cuda",
    )
    log = Log(out, run.step, report)
    try:
        for _ in training(run, loader, log, every):
            if held_out and (run.step % every.validate == 0 or run.step == recipe.steps):
                score, pictures = validate(
                    run.average, held_out, VALIDATION_SIGMA, precision=recipe.precision, device=place
                )
                log.scalars(run.step, {"psnr_sigma25": score})
                log.picture(run.step, pictures[0])
                Image.fromarray(pictures[0]).save(out / "samples" / f"step-{run.step:08d}.png")
    finally:
        log.close()
    finished = out / "model.safetensors"
    checkpoint.save_model(run.average, finished, metadata={"recipe": recipe.to_dict(), "steps": run.step})
    return finished


def training(run: Run, loader: Any, log: Log, every: Every) -> Iterator[None]:
    """Step through the loader; yields after each step."""
    losses: list[Tensor] = []
    started = time.monotonic()
    for degraded, clean in loader:
        loss, norm = run.train_step(
            degraded.to(run.device, non_blocking=True), clean.to(run.device, non_blocking=True)
        )
        losses.append(loss)
        if run.step % every.log == 0 or run.step == run.recipe.steps:
            seconds = (time.monotonic() - started) / len(losses)
            log.scalars(
                run.step,
                {
                    "loss": torch.stack(losses).mean().item(),
                    "gradient_norm": norm.item(),
                    "learning_rate": run.recipe.learning_rate * schedule(run.recipe, run.step - 1),
                    "seconds_per_step": seconds,
                    "hours_left": seconds * (run.recipe.steps - run.step) / 3600,
                },
            )
            losses = []
            started = time.monotonic()
        if run.step % every.save == 0 or run.step == run.recipe.steps:
            run.save()
        yield


def check_same_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe of a new run; refuse another one for a run that exists."""
    text = json.dumps(recipe.to_dict(), indent=2)
    if not path.exists():
        write_atomically(path, (text + "\n").encode())
        return
    try:
        same = json.loads(path.read_text()) == json.loads(text)
    except ValueError as error:
        raise MaximirError(f"{path}: cannot be read ({error}); delete it to go on") from error
    if not same:
        raise UsageError(
            f"{path.parent}: this run was started with another recipe; use a new folder, or the same recipe "
            "to go on"
        )
