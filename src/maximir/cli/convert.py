"""`maximir convert`: the authors' weights as safetensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.cli.options import Stages
from maximir.errors import UsageError

if TYPE_CHECKING:
    from maximir.network.config import MaximConfig


def convert(
    checkpoint: Annotated[
        str, typer.Argument(help="An official .npz, a TensorFlow.js package (folder or .tgz), or a model.")
    ],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Store 8-bit weights: a quarter of the size.")] = False,
    stages: Stages = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Convert the authors' weights to safetensors, checking every parameter; or a model's first stages."""
    from maximir.models import choice
    from maximir.models.checkpoint import load, read, save_model

    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: the output must be named .safetensors")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")
    if half and int8:
        raise UsageError("--half and --int8 exclude each other: give one of them")
    chosen = choice.choose(checkpoint)
    model, _ = load(chosen, stages)
    facts = read(chosen.path).facts
    if stages is not None:  # earlier stages have all outputs
        facts.pop("missing", None)
    save_model(model, output, form="int8" if int8 else "float16" if half else "float32", metadata=facts)
    if missing := facts.get("missing"):
        print(f"missing in this source, set to zero: {', '.join(missing)}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{output}: {describe(model.config)}, {parameters / 1e6:.2f} M parameters")


def describe(config: MaximConfig) -> str:
    from maximir.network.config import VARIANTS

    for name, variant in VARIANTS.items():
        if dataclasses.replace(variant, padding_mode=config.padding_mode) == config:
            return f"MAXIM {name}"
    stages = f"{config.stages} stage{'s' if config.stages > 1 else ''}"
    return f"MAXIM with {config.features} features, {stages}"
