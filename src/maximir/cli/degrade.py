"""`maximir degrade`: apply training's degradations, to look at or to test with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from maximir.cli.options import check_outside
from maximir.errors import UsageError
from maximir.files import printable


def degrade(
    inputs: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of clean photographs.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Contact sheet (.png, .jpg, .webp), or a folder for pairs."),
    ],
    names: Annotated[
        list[str] | None,
        typer.Option("--with", help="Degradation (default: all); may be repeated. See docs/training.md."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Versions of each photograph on the sheet (default: one of each kind)."),
    ] = None,
    side: Annotated[int, typer.Option(min=64, help="Side of each picture on the sheet, in pixels.")] = 256,
    rows: Annotated[int, typer.Option(min=1, help="Photographs on the sheet, spread over the folders.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
) -> None:
    """Degrade clean photographs as in training: a contact sheet to look at, or pairs to test with."""
    from maximir.degradations import DEGRADATIONS
    from maximir.training.data import SUFFIXES, find_scenes
    from maximir.training.sheet import PICTURES, contact_sheet, save_picture, write_pairs

    chosen = names or list(DEGRADATIONS)
    if unknown := [name for name in chosen if name not in DEGRADATIONS]:
        raise UsageError(f"unknown degradation {unknown[0]!r}: choose from {', '.join(DEGRADATIONS)}")
    is_picture = output.suffix.lower() in PICTURES
    if not is_picture and output.suffix.lower() in SUFFIXES:
        raise UsageError(f"{output}: a contact sheet is {', '.join(PICTURES)}; pairs go to a folder")
    inputs = list({folder.resolve(): folder for folder in inputs}.values())
    if not is_picture:
        check_outside(output, inputs)
    if output.is_dir() and not is_picture:
        if any(output.iterdir()) and not overwrite:
            raise UsageError(f"{output} is not empty; use --overwrite to replace pairs in it")
    elif output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")
    scenes = find_scenes(inputs)
    if is_picture:
        scenes = scenes[:: max(1, len(scenes) // rows)][:rows]
        if not any(scene.depth for scene in scenes):
            chosen = [name for name in chosen if not DEGRADATIONS[name].needs_depth]
        count = count or len(chosen)
        save_picture(contact_sheet(scenes, chosen, count, side, seed), output)
        shown = ", ".join(chosen[:count])
        print(f"{output}: {len(scenes)} photographs, clean and {count} times degraded: {shown}")
        return
    written, problems = write_pairs(scenes, chosen, output, seed)
    print(f"{output}: {written} pairs in input/ and target/")
    if others := len(list((output / "input").glob("[!.]*.png"))) - written:
        problems.append(f"{output}: holds {others} more pair{'s' if others > 1 else ''}, from before")
    for problem in problems:
        print(f"maximir: {printable(problem)}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)
