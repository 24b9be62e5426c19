"""Options shared by several commands, each defined once."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from maximir.models.cards import ModelCard
    from maximir.restoring.links import Link
    from maximir.restoring.presets import Preset

ONE_OF = "give one of --task, --model and --weights"

Task = Annotated[
    str | None,
    typer.Option(
        help="denoise, deblur, derain, dehaze, enhance, retouch or dejpeg: use the best model here."
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        metavar="TASK[,TASK…]",
        help="denoise, deblur, derain, dehaze, enhance, retouch or dejpeg: use the best model here; "
        "auto: choose for each photograph. Several run in order: denoise,enhance; "
        "one may have a strength: denoise:0.5,enhance.",
    ),
]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="A model's name; `maximir models` lists them.")
]
Models = Annotated[
    str | None,
    typer.Option(metavar="NAME[,NAME…]", help="The models of these names; `maximir models` lists them."),
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
Strength = Annotated[
    float | None,
    typer.Option(
        metavar="0…1",
        help="0: the input, bit for bit. 1: the restored image (the default). 0.6: in between.",
    ),
]
Detail = Annotated[
    float | None,
    typer.Option(
        metavar="0…1", help="Part of the input's fine texture, and grain, that comes back (default: 0)."
    ),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="scans, night, haze, chat or one of yours (docs/presets.md): task, strength and detail. "
        "Options given with it override it.",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Restore only where this image is white, and partly where it is grey; "
        "the rest stays bit for bit, unless the format of the result has losses (JPEG, AVIF).",
    ),
]
KeepTimes = Annotated[bool, typer.Option("--keep-times", help="Give results the times of their sources.")]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report", metavar="FILE", help="Append one line of JSON per image to this file: the outcome."
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
    raise UsageError(ONE_OF)


def links_of(task: str | None, model: str | None, weights: str | None) -> tuple[Link, ...]:
    """Return the chain, mostly of one link, that --task, --model or --weights selects.

    Raises:
        UsageError: not exactly one of them is given, or a model is not on this machine.
    """
    from maximir.models import choice
    from maximir.restoring.links import Link, parse_links

    match task, model, weights:
        case str(), None, None:
            return parse_links(task, choice.for_task)
        case None, str(), None:
            return parse_links(model, choice.named)
        case None, None, str():
            return (Link(choice.choose(weights)),)
    raise UsageError(ONE_OF)


def shares_of(mask: Path | None) -> np.ndarray | None:
    """Return the mask as `prepare_mask` does, or None without one."""
    if mask is None:
        return None
    from maximir.restoring.blending import prepare_mask

    return prepare_mask(mask)


def chosen(
    preset: str | None, task: str | None, model: str | None, weights: str | None, **numbers: float | None
) -> Preset:
    """Return the preset, or the defaults, with the options beside it instead of what it says.

    Raises:
        UsageError: the preset is unknown, the user's file of presets is invalid, or nothing says what to do.
    """
    from maximir.restoring import presets

    base = presets.Preset() if preset is None else presets.find(preset)
    if weights is not None:
        base = dataclasses.replace(base, task=None, model=None)
    wanted = base.override(task, model, **numbers)
    if not (wanted.task or wanted.model or weights):
        raise UsageError(f"{ONE_OF}, or a --preset")
    return wanted


def check_outside(output: Path, folders: Iterable[Path]) -> None:
    """Raise UsageError if `output` is one of the folders that images are read from, or inside one."""
    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()):
            where = f"is {folder} or inside it, whose images are read"
            raise UsageError(f"{output}: {where}; choose another folder")


def command_line() -> str:
    """Return the command line for reports, without credentials in addresses."""
    from maximir.storage import redact

    return shlex.join(["maximir", *map(redact, sys.argv[1:])])
