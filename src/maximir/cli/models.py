"""`maximir models` lists all models; `maximir get` fetches the authors'."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from maximir.errors import MaximirError, UsageError
from maximir.files import printable

FROM = "A file (.npz, .safetensors, .tgz), folder or web address to use instead of the usual sources."


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all details.")] = False,
) -> None:
    """List all models: in the box, the authors', and yours."""
    from maximir.models import authors, choice, user_models

    cards = choice.known().values()
    if as_json:
        print(json.dumps([card.facts() for card in cards], indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "where", "size"):
        table.add_column(heading, no_wrap=True)
    table.add_column("trained on", ratio=2)
    table.add_column("PSNR (dB) / SSIM", ratio=3)
    for card in cards:
        size, _, _, trained_on, problem = card.header
        where = "box" if card.origin == "box" else "here" if card.path.is_file() else "get"
        if problem:
            table.add_row(printable(card.name), "damaged", "", printable(problem), "")
            continue
        if size is None and isinstance(card, authors.AuthorsModel):
            size = authors.BYTES[card.variant]
        figures = card.measured or (card.published and f"published: {card.published}")
        megabytes = "" if size is None else f"{size / 1e6:.0f} MB"
        table.add_row(printable(card.name), where, megabytes, card.trained_on or trained_on, figures)
    console.print(table)
    console.print(
        "box: comes with maximir. get: `maximir get NAME` fetches it. here: in", soft_wrap=True, end=" "
    )
    console.print(str(user_models.folder()), soft_wrap=True)
    console.print(f"Licence: {authors.LICENCE}, except for your own models.", soft_wrap=True)


def get(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Models or tasks; `maximir models` lists them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Fetch all that the authors released.")] = False,
    source: Annotated[str | None, typer.Option("--from", metavar="SOURCE", help=FROM)] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again models that are already here.")] = False,
) -> None:
    """Fetch and verify models of MAXIM's authors: from their bucket, or from npm with your npm client."""
    from maximir.models import authors

    if (everything and names) or not (everything or names or source):
        raise UsageError("give names of models, or --all")
    if source and (everything or len(names or ()) > 1):
        raise UsageError("--from is the source of one model: give its name, or no name to have it recognised")
    if everything:
        chosen = list(authors.MODELS)
    else:
        chosen = [wanted(name) for name in names or ()] or [recognised(source or "")]
    failed = 0
    for model in dict.fromkeys(chosen):
        if model.path.is_file() and not model.header.problem and not force:
            print(f"{model.name}: already here, {model.path}")
            continue
        try:
            print(f"{model.name}: {bring(model, source)}")
        except MaximirError as error:
            failed += 1
            print(f"maximir: {printable(error)}", file=sys.stderr)
        except KeyboardInterrupt:
            print("maximir: interrupted; complete models are kept", file=sys.stderr)
            raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


def wanted(name: str) -> Any:
    """Return the authors' model of this name, or for this task.

    Raises:
        UsageError: there is no such model.
    """
    import difflib

    from maximir.models import authors
    from maximir.models.catalogue import TASKS

    name = authors.OF_TASK.get(name, name)
    if name not in authors.BY_NAME:
        if name in TASKS:
            raise UsageError(
                f"MAXIM's authors have no model for {name}; the one in the box needs no download"
            )
        near = difflib.get_close_matches(name, authors.BY_NAME, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown model {name!r}: {meant}choose from {', '.join(authors.BY_NAME)}")
    return authors.BY_NAME[name]


def recognised(source: str) -> Any:
    """Identify the authors' model in a file or folder."""
    from maximir.models.fetch import recognise

    return recognise(source)


def bring(model: Any, source: str | None) -> str:
    """Fetch a model with progress on standard error; return where it is, in words."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from maximir.models.fetch import fetch

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    columns = (TextColumn(model.name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(model.name, total=None)
        path = fetch(
            model,
            source,
            report=lambda done, total: progress.update(bar, completed=done, total=total),
            say=console.print,
        )
    proof = "its parameters are the authors'" if model.digest else "its parameters could not be verified yet"
    return f"verified, {proof}; {path}" if model.digest else f"{proof}; {path}"
