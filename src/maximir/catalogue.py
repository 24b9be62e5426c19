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
    """A model in the box, named after its task. Its card, `weights/TASK.md`, says more.

    Attributes:
        summary: what it is for.
        data: what it was trained on.
        hours: for how long, on what.
        results: input → output PSNR (dB) on images that it was not trained on, from the card.
        licence: of the weights.
    """

    task: str
    summary: str
    data: str
    hours: str
    results: str
    licence: str = "Apache-2.0"

    @property
    def path(self) -> Path:
        return WEIGHTS / f"{self.task}.safetensors"

    @property
    def card(self) -> Path:
        return WEIGHTS / f"{self.task}.md"


MODELS = (
    EmbeddedModel(
        "denoise",
        "Gaussian noise of unknown strength, and the noise of cameras",
        "545 photographs, synthetic noise; 40 pairs of PolyU",
        "1.8 h, 2 CPU cores; 0.6 h, 1 core",
        "McMaster, sigma 25: 20.17 → 31.51; PolyU, 4 held-out scenes: 32.66 → 34.97",
    ),
    EmbeddedModel(
        "derain",
        "streaks of rain and light mist",
        "545 photographs, synthetic rain; 7 pairs of RainTrainL",
        "1.1 h, 1 CPU core",
        "McMaster, synthetic rain: 16.82 → 23.68",
    ),
    EmbeddedModel(
        "dehaze",
        "haze, mist and smog, indoors and outdoors",
        "454 photographs, synthetic haze; 20 indoor scenes of RESIDE",
        "1.6 h, 1 CPU core",
        "SOTS indoor, 4 held-out scenes: 10.30 → 19.90",
    ),
    EmbeddedModel(
        "enhance",
        "photographs taken with too little light",
        "49 pairs of ELIEI and LOL; 545 photographs, synthetic darkness",
        "0.9 h, 1 CPU core",
        "ELIEI, 11 held-out pairs: 8.63 → 21.36; LOL, 1: 6.22 → 19.66",
    ),
)
BY_TASK = {model.task: model for model in MODELS}


def for_task(task: str) -> EmbeddedModel:
    """The model of a task.

    Raises:
        UsageError: unknown task, or one that has no embedded model yet.
    """
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    if task not in BY_TASK:
        raise UsageError(
            f"no model for {task!r} comes with maximir yet: give the weights (--weights FILE), for instance "
            "an official .npz checkpoint"
        )
    return BY_TASK[task]


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """The weights file that a path or a task means.

    Raises:
        UsageError: neither a task that has a model nor something that looks like a file.
    """
    text = os.fspath(path_or_name)
    if text in TASKS:
        return for_task(text).path
    path = Path(text)
    if path.suffix or path.exists():
        return path
    raise UsageError(
        f"unknown model {text!r}: give a .safetensors or .npz file, or one of " + ", ".join(BY_TASK)
    )
