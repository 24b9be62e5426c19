"""`maximir convert`: an official checkpoint as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.errors import UsageError

if TYPE_CHECKING:
    from maximir.network.config import MaximConfig


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="An official .npz checkpoint.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Convert an official checkpoint to safetensors, every parameter checked."""
    from maximir.models.checkpoint import load_model, save_model

    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: the output must be named .safetensors")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")
    model = load_model(checkpoint)
    save_model(model, output, half=half)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{output}: {describe(model.config)}, {parameters / 1e6:.2f} M parameters")


def describe(config: MaximConfig) -> str:
    from maximir.network.config import VARIANTS

    for name, variant in VARIANTS.items():
        if variant == config:
            return f"MAXIM {name}"
    return f"MAXIM with {config.features} features, {config.stages} stage(s)"
