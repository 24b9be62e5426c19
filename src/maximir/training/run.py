"""A network in training and its saved states."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from maximir import sizes
from maximir.errors import MaximirError, UsageError
from maximir.files import GIT_LFS, PART, refuse_pointer, write_atomically
from maximir.models import checkpoint
from maximir.network.model import Maxim
from maximir.training.distributed import Processes, accumulating, as_parts, spread, whole
from maximir.training.losses import restoration_loss
from maximir.training.optimizers import make_optimizers
from maximir.training.recipe import Recipe
from maximir.training.teacher import Teacher

KEPT_STATES = 2
NAMED_IMAGES = 8  # at most, from a batch, in a message


@dataclass(frozen=True)
class Execution:
    """Execution settings of a run. They do not change its result, except for rounding and dropout.

    (Dropout's random numbers depend on the number of processes and parts.)

    Attributes:
        device: "auto", "cpu" or "cuda".
        workers: loader processes; with 0, samples are made between the steps.
        accumulate: number of parts in which a batch goes through the network.
        recompute: keep only the inputs of blocks, and compute blocks again for the gradients.
        compile: use `torch.compile`. It does not help on CPUs (docs/experiments.md, 1).
        shard: use FSDP2 instead of DDP, under torchrun.
    """

    device: str = "auto"
    workers: int = 0
    accumulate: int = 1
    recompute: bool = False
    compile: bool = False
    shard: bool = False


DEFAULT = Execution()


def schedule(recipe: Recipe, step: int) -> float:
    """Return the factor on the learning rates: linear warm-up from 0, then cosine decay.

    `start_at` skips that fraction of the decay.
    """
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    done = recipe.start_at + (1 - recipe.start_at) * done
    final = recipe.final_learning_rate / recipe.learning_rate
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


class Drawing(TorchFunctionMode):
    """New modules are float32, and drawn from their own random numbers.

    Torch's default dtype and random numbers belong to the whole process, so they are not changed.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        chosen = {"dtype": torch.float32, "generator": self.generator}
        return function(*args, **{k: chosen.get(k) if v is None else v for k, v in (kwargs or {}).items()})


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers, which dropout uses; afterwards they are the program's again."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def first_weights(recipe: Recipe, *, load: bool = True) -> Maxim:
    """Make the network at the start of a run: random, or with the weights of the recipe's `init`.

    Args:
        load: read `init`; not needed if a saved state is loaded afterwards.

    Raises:
        MaximirError: `init` cannot be loaded, or its network has another shape.
    """
    with Drawing(recipe.seed):
        model = Maxim(recipe.model)
    if recipe.init and load:
        loaded = checkpoint.load_model(recipe.init)
        if recipe.model.stages < loaded.config.stages:  # the first stages of a larger model restore too
            loaded = loaded.first_stages(recipe.model.stages)
        same = dataclasses.replace(  # compare only the fields that weights depend on
            loaded.config, dropout=recipe.model.dropout, padding_mode=recipe.model.padding_mode
        )
        if same != recipe.model:
            raise UsageError(
                f"recipe: init = {recipe.init!r} has another shape than the recipe's model: "
                f"{loaded.config} and {recipe.model}"
            )
        heads = [{k: v.clone() for k, v in head.state_dict().items()} for head in model.heads()]
        model.load_state_dict(loaded.state_dict())
        if recipe.reset_head:
            for head, fresh in zip(model.heads(), heads, strict=True):
                head.load_state_dict(fresh)
    if recipe.start_as_identity and (recipe.reset_head or not recipe.init):
        model.zero_outputs_()
    return model


class Run:
    """A network in training: weights, their moving average, optimisers and the number of steps done."""

    def __init__(
        self, recipe: Recipe, folder: Path, processes: Processes, execution: Execution = DEFAULT
    ) -> None:
        """Set up a run in `folder`; nothing is written before `begin`.

        Raises:
            MaximirError: the folder holds a run of another recipe, batches cannot be divided evenly, or the
                recipe's `init` cannot be used.
        """
        check_parts(recipe, processes, execution)
        check_same_recipe(recipe, folder / "recipe.json")
        self.recipe, self.folder, self.processes, self.execution = recipe, folder, processes, execution
        self.data_digest = ""
        model = first_weights(recipe, load=not self.states()).to(processes.device).train()
        self.model = model
        self.teacher = Teacher(recipe.teacher, processes.device) if recipe.teacher else None
        if self.teacher is not None:
            check_patches(recipe, self.teacher.multiple)
        self.model.recompute(execution.recompute)
        self.network: nn.Module = spread(model, processes, shard=execution.shard)
        if execution.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]
        self.average = {name: value.detach().clone() for name, value in model.named_parameters()}
        self.optimizers = make_optimizers(
            self.model, recipe.optimizer, recipe.learning_rate, recipe.betas, recipe.muon_learning_rate
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        self.step = 0

    @property
    def device(self) -> torch.device:
        return self.processes.device

    @property
    def features(self) -> torch.dtype:
        """The dtype of matrix products and feature maps."""
        return torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32

    def train_step(
        self, degraded: Tensor, clean: Tensor, origins: Sequence[str] = (), lessons: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take one optimiser step; return the loss and the gradient norm before clipping, for all processes.

        Args:
            degraded, clean: `[N, 3, H, W]`, this process's part of the batch.
            origins: the images they were made from, for the error message.
            lessons: `[N]`, the kind of target of each if there is a teacher (`maximir.training.teacher`).

        Raises:
            MaximirError: the gradient is not finite. Weights and states are unchanged.
        """
        recipe, parts = self.recipe, self.execution.accumulate
        if self.teacher is not None and lessons is not None:
            clean = self.teacher.targets(degraded, clean, lessons)
        seed = (self.processes.rank << 48) + recipe.seed * 1_000_003 + self.step
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(recipe, self.step)
        self.model.zero_grad(set_to_none=True)
        losses = []
        chunks = zip(degraded.chunk(parts), clean.chunk(parts), strict=True)
        with seeded(seed, self.device) if recipe.model.dropout else contextlib.nullcontext():
            for number, (part, target) in enumerate(chunks, 1):
                with accumulating(self.network, last=number == parts):
                    with torch.autocast(self.device.type, torch.bfloat16, self.features == torch.bfloat16):
                        outputs = self.network(part)
                    loss = restoration_loss(outputs, target, recipe.colour) / parts
                    loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
        loss = self.processes.mean(torch.stack(losses).sum())
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm))
        if not torch.isfinite(norm):
            images = ", ".join(origins[:NAMED_IMAGES]) + (" …" if len(origins) > NAMED_IMAGES else "")
            raise MaximirError(
                f"step {self.step}: the loss is {loss.item()} and the gradient's norm {norm.item()}, on a "
                f"batch of {images or 'unknown images'}. The states in {self.folder / 'states'} are from "
                "earlier steps; try a new run with a lower learning rate"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(recipe.ema, self.step / (self.step + 10))  # forget the first, poor weights quickly
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.model.parameters()), 1 - decay)
        return loss, norm

    def averaged(self) -> Maxim:
        """Return the network with the averaged weights. All processes must call this."""
        with torch.device("meta"):
            model = Maxim(self.recipe.model)
        state = {name: whole(value) for name, value in self.average.items()}
        model.load_state_dict(state, assign=True)
        return model.eval().requires_grad_(False)

    # --- states -------------------------------------------------------------------------------------

    def state_path(self, step: int) -> Path:
        return self.folder / "states" / f"step-{step:08d}.safetensors"

    def save(self) -> None:
        """Write a state, then delete all but the newest states."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        tensors: dict[str, Tensor] = {f"model.{name}": parameter for parameter, name in names.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                tensors |= {f"{key}.{names[parameter]}": value for key, value in moments.items()}
        tensors = {name: whole(tensor.detach()).cpu().contiguous() for name, tensor in tensors.items()}
        if self.processes.first:
            self.state_path(self.step).parent.mkdir(parents=True, exist_ok=True)
            metadata = {
                "step": str(self.step),
                "recipe": json.dumps(self.recipe.to_dict()),
                "data": self.data_digest,
            }
            checkpoint.write_tensors(self.state_path(self.step), tensors, metadata)
            for path in self.states()[:-KEPT_STATES]:
                path.unlink()
        self.processes.wait()

    def states(self) -> list[Path]:
        return saved_states(self.folder)

    def begin(self, report: Callable[[str], None]) -> None:
        """Make the folder, or resume from its newest whole state; damaged states are reported.

        Raises:
            MaximirError: all its states are damaged, or the disk has too little space for new ones.
            OSError: the folder cannot be made, or files in it cannot be read or written.
        """
        if self.processes.first:
            (self.folder / "states").mkdir(parents=True, exist_ok=True)
            for folder in (self.folder, self.folder / "states"):
                for part in folder.glob(f"{PART}*"):
                    part.unlink()  # left by an interrupted write
            self.check_room()
            write_recipe(self.recipe, self.folder / "recipe.json")
        found = self._newest_whole_state(report) if self.processes.first else -1
        step = self.processes.agree(found)
        if step >= 0:
            self._restore(checkpoint.read_tensors(self.state_path(step))[1])
            self.step = step
            report(f"resumed from {self.state_path(step)}")

    def _newest_whole_state(self, report: Callable[[str], None]) -> int:
        """Return the step of the newest whole state, or -1 if there is no state."""
        for path in reversed(self.states()):
            check_content(path)
            try:
                metadata, _ = checkpoint.read_tensors(path)
                step = int(metadata["step"])
                same = Recipe.from_dict(json.loads(metadata["recipe"])) == self.recipe
            except (MaximirError, KeyError, ValueError) as error:  # not OSError: the file may be good
                damaged = path.replace(path.with_suffix(".damaged"))  # else it would count as newest
                report(f"{damaged}: damaged, trying the one before ({error})")
                continue
            if not same:
                raise MaximirError(f"{path}: belongs to another recipe; use a new folder")
            if metadata.get("data") != self.data_digest:
                report("the training images have changed since the run began, so it cannot resume exactly")
            return step
        if any((self.folder / "states").iterdir()):
            raise MaximirError(f"{self.folder / 'states'}: no state is whole; use a new folder")
        return -1

    def check_room(self) -> None:
        """Raise MaximirError if the disk has too little space for the states."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        needed = (KEPT_STATES + 1) * 16 * parameters  # weights, average, two moments
        there = sum(path.stat().st_size for path in self.states())
        free = shutil.disk_usage(self.folder).free
        if free + there < needed:
            raise MaximirError(
                f"{self.folder}: the states of this run take {sizes.in_words(needed)}, but only "
                f"{sizes.in_words(free)} is free on the disk"
            )

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for kind in ("model", "average"):
            if {label for label in tensors if label.startswith(kind)} != {f"{kind}.{n}" for n in parameters}:
                raise MaximirError(f"{self.folder / 'states'}: the state holds other parameters")
        owners = {p: o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for label, value in tensors.items():
            key, name = label.split(".", 1)
            parameter = parameters[name]
            if key == "model":
                parameter.copy_(as_parts(value, parameter))
            elif key == "average":
                self.average[name].copy_(as_parts(value, parameter))
            else:
                moment = (
                    as_parts(value, parameter) if value.shape == parameter.shape else value.to(self.device)
                )
                owners[parameter].state[parameter][key] = moment


def check_content(state: Path) -> None:
    """Raise MaximirError for a Git LFS pointer: the state is not damaged, but elsewhere."""
    with state.open("rb") as file:
        start = file.read(len(GIT_LFS))
    try:
        refuse_pointer(start)
    except MaximirError as error:
        raise MaximirError(f"{state}: {error}") from error


def check_parts(recipe: Recipe, processes: Processes, execution: Execution) -> None:
    """Raise UsageError if a batch cannot be divided evenly among processes and parts."""
    parts = processes.count * execution.accumulate
    for phase in recipe.phases:
        if phase.batch % parts:
            raise UsageError(
                f"recipe: a batch of {phase.batch} cannot be divided evenly among {processes.count} "
                f"process(es) in {execution.accumulate} part(s) each"
            )
    if execution.shard and recipe.optimizer != "adam":
        raise UsageError('--shard needs optimizer = "adam": Muon takes whole matrices')


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a run's folder if it is missing, and keep other processes out of it.

    Raises:
        MaximirError: another process has it already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise MaximirError(f"{folder}: another process trains in this folder") from error
    with lock:
        yield


def write_recipe(recipe: Recipe, path: Path) -> None:
    if not path.exists():
        write_atomically(path, (json.dumps(recipe.to_dict(), indent=2) + "\n").encode())


def saved_states(folder: Path) -> list[Path]:
    """Return the states of the run in `folder`, oldest first."""
    return sorted((folder / "states").glob("step-*.safetensors"))


def check_patches(recipe: Recipe, multiple: int) -> None:
    """Refuse patches that the teacher cannot take."""
    if wrong := [phase.patch for phase in recipe.phases if phase.patch % multiple]:
        raise UsageError(
            f"recipe: patches must be multiples of {multiple} for the teacher {recipe.teacher}, "
            f"not {wrong[0]}"
        )


def check_same_recipe(recipe: Recipe, path: Path) -> None:
    """Refuse another recipe for a run that exists."""
    if not path.exists():
        return
    try:
        before = Recipe.from_dict(json.loads(path.read_text("utf-8-sig"))).to_dict()
    except (ValueError, MaximirError) as error:
        raise MaximirError(f"{path}: cannot be read ({error}); delete it to resume") from error
    now = recipe.to_dict()
    if changed := [name for name in now if now[name] != before[name]]:
        name = changed[0]
        raise UsageError(
            f"{path.parent}: this run was started with another recipe ({name} was {before[name]}, now "
            f"{now[name]}); use a new folder, or the same recipe to resume it"
        )
