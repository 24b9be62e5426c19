"""The models that come with maximir, and which one a task uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from maximir.errors import UsageError

WEIGHTS = Path(__file__).parent / "weights"
TASKS = ("denoise", "deblur", "derain", "dehaze", "enhance")


@dataclass(frozen=True)
class EmbeddedModel:
    """A model in the box. Its card, `weights/NAME.md`, says more.

    Attributes:
        summary: what it is for.
        data: what it was trained on.
        hours: for how long, on what.
        results: input and output PSNR on images that it was not trained on, from the card.
        licence: of the weights.
    """

    name: str
    task: str
    summary: str
    data: str
    hours: str
    results: str
    licence: str = "Apache-2.0"

    @property
    def path(self) -> Path:
        return WEIGHTS / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        return WEIGHTS / f"{self.name}.md"


MODELS = (
    EmbeddedModel("denoise-gaussian", "denoise", "blind colour Gaussian noise, sigma 0 to 55", "", "", ""),
)
BY_NAME = {model.name: model for model in MODELS}
DEFAULTS = {model.task: model for model in reversed(MODELS)}  # a task's first model


def for_task(task: str) -> EmbeddedModel:
    """The default model of a task.

    Raises:
        UsageError: unknown task, or one that has no embedded model yet.
    """
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    if task not in DEFAULTS:
        raise UsageError(
            f"no model for {task!r} comes with maximir yet: give the weights (--weights FILE), for instance "
            "an official .npz checkpoint"
        )
    return DEFAULTS[task]


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """The weights file that a path, a model's name or a task's name means.

    Raises:
        UsageError: neither an embedded name nor something that looks like a file.
    """
    text = os.fspath(path_or_name)
    if text in BY_NAME:
        return BY_NAME[text].path
    if text in TASKS:
        return for_task(text).path
    path = Path(text)
    if path.suffix or path.exists():
        return path
    raise UsageError(
        f"unknown model {text!r}: give a .safetensors or .npz file, or one of "
        + ", ".join([*DEFAULTS, *BY_NAME])
    )
