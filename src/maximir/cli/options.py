"""Options shared by several commands, each defined once."""

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
    typer.Option(help="denoise, deblur, derain, dehaze, enhance or retouch: use the best model here."),
]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="A model's name; `maximir models` lists them.")
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights: .safetensors, official .npz, or a TensorFlow.js package."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|bf16",
        help="fp32: exact. bf16: half the memory, and faster on processors and GPUs with bfloat16 hardware. "
        "auto: bf16 for 8-bit images where it is faster, otherwise fp32.",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory limit, e.g. 4GB. Data beyond it goes to scratch files; the result is the same.",
    ),
]
Scratch = Annotated[
    Path | None, typer.Option(help="Folder for scratch files (default: the system's temporary folder).")
]
View = Annotated[
    str,
    typer.Option(
        metavar="auto|exact",
        help="exact: restore every photograph whole, as in the paper. auto: large ones, where it is better, "
        "get their light from a small view and their detail from tiles.",
    ),
]
Stages = Annotated[
    int | None,
    typer.Option(metavar="N", help="Stop after N of the model's stages: faster, slightly lower quality."),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Average over eight rotations and reflections: slightly better, eight times as slow.",
    ),
]


def model_of(task: str | None, model: str | None, weights: str | None) -> ModelCard:
    """Return the model that --task, --model or --weights selects.

    Raises:
        UsageError: not exactly one of them is given, or the model is not on this machine.
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
    """Return the command line for reports, without credentials in addresses."""
    from maximir.storage import redact

    return shlex.join(["maximir", *map(redact, sys.argv[1:])])
