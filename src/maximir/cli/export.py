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
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="A model's name, a task, or weights, as for --model and --weights. "
            "With --for web: any number of them (default: the models in the box).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The .onnx or .pt2 file to write; with --for web, the folder."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Only for images of N x N, N a multiple of 64 (default: any multiples)."
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Also write facts (.json) for programs that cut large photographs into tiles of N x N.",
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store weights in half precision: half the size.")
    ] = False,
    stages: Stages = None,
    program: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="darktable|web",
            help="Write a package for darktable, or a page without a server (docs/hosts).",
        ),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With --for web: npm's package onnxruntime-web, a .tgz or a folder (default: download it).",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Export a model to ONNX or torch.export and check its output (docs/hosts/onnx.md)."""
    if program == "web":
        if size is not None or stages is not None or half:
            raise UsageError("--size, --stages and --half are not for --for web")
        for_web(models or [], output, tile, runtime, overwrite)
        return
    if runtime is not None:
        raise UsageError("--runtime is for --for web")
    if not models or len(models) > 1:
        raise UsageError("give one model: a name, a task, or a file of weights")
    (model,) = models
    if program is not None:
        if tile is not None or half:
            raise UsageError(f"--tile and --half are not for --for {program}")
        for_darktable(program, model, output, size, stages, overwrite)
        return
    if output is None:
        raise UsageError("give the file to write: -o model.onnx")
    for file in (output,) if tile is None else (output, output.with_suffix(".json")):
        if file.exists() and not overwrite:
            raise UsageError(f"{file} exists; use --overwrite to replace it")

    from maximir.hosts import export as hosts
    from maximir.models import checkpoint, choice

    hosts.check_request(output, size, tile=tile, half=half)
    chosen = choice.choose(model)
    network, task = checkpoint.load(chosen, stages)
    clock = time.monotonic()
    facts = {"model": chosen.name, "task": task}
    with quiet():
        difference = hosts.export(network, output, size, facts, tile=tile, half=half)
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
        raise UsageError(f"--for {program}: choose darktable or web")
    chosen = choice.choose(model)
    name = darktable.identifier(chosen.name)
    output = output or Path(f"{name}{darktable.SUFFIX}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")
    size = darktable.TILE if size is None else size
    darktable.check_request(output, size)
    network, task = checkpoint.load(chosen, stages)
    card = darktable.card_of(chosen)
    with quiet():
        difference = darktable.package(network, task, output, name=name, card=card, size=size)
    print(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, for tiles of {size} x {size}, "
        f"differs from maximir by {difference:.1e} at most"
    )


def for_web(
    models: list[str], output: Path | None, tile: int | None, runtime: Path | None, overwrite: bool
) -> None:
    from maximir.hosts import web
    from maximir.models import catalogue, choice

    if output is None:
        raise UsageError("give the folder to write: -o site")
    tile = web.TILE if tile is None else tile
    web.check_request(output, runtime, tile, overwrite=overwrite)
    cards = [choice.choose(model) for model in models] or [*catalogue.MODELS]
    with quiet():
        web.write_site(cards, output, runtime, tile=tile, overwrite=overwrite, report=print)
    total = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {total / 1e6:.1f} MB; docs/hosts/web.md says how to publish it")


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
