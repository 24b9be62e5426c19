"""`maximir export`: a model as a file for other runtimes and programs."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from maximir.cli.options import Stages
from maximir.errors import UsageError


def export(
    model: Annotated[
        str, typer.Argument(help="A model's name, a task, or weights, as for --model and --weights.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The .onnx or .pt2 file to write.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Only for images of N x N, N a multiple of 64 (default: any multiples)."
        ),
    ] = None,
    stages: Stages = None,
    program: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="darktable", help="Write a package for that program (docs/hosts/darktable.md)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Export a model to ONNX or torch.export and check its output (docs/hosts/onnx.md)."""
    if program is not None:
        for_darktable(program, model, output, size, stages, overwrite)
        return
    if output is None:
        raise UsageError("give the file to write: -o model.onnx")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")

    from maximir.hosts import export as hosts
    from maximir.models import checkpoint, choice

    hosts.check_request(output, size)
    name = choice.choose(model).name
    network, task = checkpoint.load(model, stages)
    clock = time.monotonic()
    with quiet():
        difference = hosts.export(network, output, size, {"model": name, "task": task})
    print(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, "
        f"differs from maximir by {difference:.1e} at most, {time.monotonic() - clock:.0f} s"
    )


def for_darktable(
    program: str, model: str, output: Path | None, size: int | None, stages: int | None, overwrite: bool
) -> None:
    from maximir.hosts import darktable
    from maximir.models import checkpoint, choice

    if program != "darktable":
        raise UsageError(f"--for {program}: only darktable has its own package format")
    chosen = choice.choose(model)
    name = darktable.identifier(chosen.name)
    output = output or Path(f"{name}{darktable.SUFFIX}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")
    size = darktable.TILE if size is None else size
    darktable.check_request(output, size)
    network, task = checkpoint.load(model, stages)
    card = darktable.card_of(chosen)
    with quiet():
        difference = darktable.package(network, task, output, name=name, card=card, size=size)
    print(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, for tiles of {size} x {size}, "
        f"differs from maximir by {difference:.1e} at most"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' remarks about packages, folding and their own old code.

    Loggers and warnings belong to the process: the command's, which may set them.
    """
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
