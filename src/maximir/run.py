"""A network in training, and its states on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from maximir import checkpoint
from maximir.errors import MaximirError, UsageError
from maximir.files import write_atomically
from maximir.losses import restoration_loss
from maximir.model import Maxim
from maximir.optimizers import make_optimizers
from maximir.recipe import Recipe

KEPT_STATES = 2


def schedule(recipe: Recipe, step: int) -> float:
    """Factor on the learning rates: linear warm-up from 0, then cosine decay to the final one."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    final = recipe.final_learning_rate / recipe.learning_rate
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


class Run:
    """A network in training: weights, their moving average, optimisers, and how many steps were done."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        """A new run in `folder`, which is made.

        Raises:
            MaximirError: the folder holds a run of another recipe.
            OSError: the folder cannot be made or written to.
        """
        self.recipe, self.folder, self.device = recipe, folder, device
        (folder / "states").mkdir(parents=True, exist_ok=True)
        check_same_recipe(recipe, folder / "recipe.json")
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

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def train_step(self, degraded: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """One optimiser step; loss and gradient norm before clipping."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(recipe, self.step)
        with self.autocast():
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
