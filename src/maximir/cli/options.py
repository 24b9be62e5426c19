"""Options that several commands share, each defined once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.errors import UsageError

if TYPE_CHECKING:
    from maximir.models.cards import ModelCard

Task = Annotated[
    str | None,
    typer.Option(help="denoise, deblur, derain, dehaze, enhance or retouch: the best model here for it."),
]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="A model by its name: `maximir models` lists them.")
]
Weights = Annotated[
    str | None, typer.Option(help="Weights instead: .safetensors, official .npz, or a TensorFlow.js package.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|bf16",
        help="fp32: exact. bf16: half the memory, and faster where the processor or GPU is made for it. "
        "auto: there bf16 for pictures of 8 bits, else fp32.",
    ),
]
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
View = Annotated[
    str,
    typer.Option(
        metavar="auto|exact",
        help="exact: every photograph whole, as in the paper. auto: large ones get their light from a small "
        "view and their detail in tiles, where that is better.",
    ),
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


def model_of(task: str | None, model: str | None, weights: str | None) -> ModelCard:
    """The model that --task, --model or --weights means.

    Raises:
        UsageError: not one of them is given, or there is no such model here.
    """
    from maximir.models import choice

    match task, model, weights:
        case str(), None, None:
            return choice.for_task(task)
        case None, str(), None:
            return choice.named(model)
        case None, None, str():
            return choice.choose(weights)
    raise UsageError("give one of --task, --model and --weights")


def command_line() -> str:
    """What was typed, for reports; without the credentials that addresses may hold."""
    from maximir.storage import redact

    return shlex.join(["maximir", *map(redact, sys.argv[1:])])
