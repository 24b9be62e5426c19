"""`maximir degrade`: apply training's degradations, to look at or to test with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maximir.errors import UsageError


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
    count: Annotated[int, typer.Option(min=1, help="Versions of each photograph on the sheet.")] = 6,
    side: Annotated[int, typer.Option(min=64, help="Side of each picture on the sheet, in pixels.")] = 256,
    rows: Annotated[int, typer.Option(min=1, help="Photographs on the sheet, spread over the folders.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
) -> None:
    """Degrade clean photographs as in training: a contact sheet to look at, or pairs to test with."""
    from maximir.degradations import DEGRADATIONS
    from maximir.training.data import find_scenes
    from maximir.training.sheet import PICTURES, contact_sheet, save_picture, write_pairs

    chosen = names or list(DEGRADATIONS)
    if unknown := [name for name in chosen if name not in DEGRADATIONS]:
        raise UsageError(f"unknown degradation {unknown[0]!r}: choose from {', '.join(DEGRADATIONS)}")
    scenes = find_scenes(inputs)
    if output.suffix.lower() in PICTURES:
        scenes = scenes[:: max(1, len(scenes) // rows)][:rows]
        save_picture(contact_sheet(scenes, chosen, count, side, seed), output)
        print(f"{output}: {len(scenes)} photographs, clean and {count} times degraded: {', '.join(chosen)}")
    else:
        written = write_pairs(scenes, chosen, output, seed)
        print(f"{output}: {written} pairs in input/ and target/")
