"""Options that several commands share, each defined once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from maximir.errors import UsageError

Task = Annotated[
    str | None, typer.Option(help="denoise, deblur, derain, dehaze or enhance: the embedded model for it.")
]
Weights = Annotated[
    str | None, typer.Option(help="Weights instead: .safetensors, official .npz, or a model's name.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Precision = Annotated[str, typer.Option(help="fp32 (exact), or bf16: faster, half the memory.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Hold at most this much, e.g. 4GB; the rest goes to scratch files, with the same result.",
    ),
]
Scratch = Annotated[
    Path | None, typer.Option(help="Folder for scratch files (default: the system's for temporary files).")
]
Stages = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="End after so many of the model's stages: faster, and a little less good."
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Mean over eight rotations and reflections: a little better, eight times the time.",
    ),
]


def model_of(task: str | None, weights: str | None) -> str:
    """The model that --task or --weights means.

    Raises:
        UsageError: both or neither are given, or there is no such task.
    """
    from maximir.models import catalogue

    if task is not None and weights is None:
        return catalogue.for_task(task).task
    if weights is not None and task is None:
        return weights
    raise UsageError("give either --task or --weights")


def command_line() -> str:
    """What was typed, for reports."""
    return shlex.join(["maximir", *sys.argv[1:]])
