"""`maximir compare`: paired differences between two evaluations."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from maximir.cli.evaluate import watch
from maximir.cli.options import Device, Precision
from maximir.errors import UsageError
from maximir.files import printable
from maximir.restoring.options import Options


def compare(
    a: Annotated[
        str, typer.Argument(help="Folder from `evaluate --out`; with --data, a model or a folder of images.")
    ],
    b: Annotated[str, typer.Argument(help="The same.")],
    data: Annotated[Path | None, typer.Option(help="As for `evaluate`.")] = None,
    protocol: Annotated[str | None, typer.Option(help="As for `evaluate`.")] = None,
    degrade: Annotated[str | None, typer.Option(help="As for `evaluate`.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="As for `evaluate`.")] = None,
    colour: Annotated[bool, typer.Option("--colour", help="As for `evaluate`.")] = False,
    worst: Annotated[int, typer.Option(min=0, help="Number of images to list at each end.")] = 3,
    device: Device = Options.device,
    precision: Precision = Options.precision,
) -> None:
    """Compare B with A image by image: paired differences with a 95 % confidence interval."""
    from rich.console import Console

    from maximir.evaluation import compare as comparing
    from maximir.evaluation import report
    from maximir.evaluation.evaluate import WHOLE, Request, prepare
    from maximir.evaluation.scores import RUN, kept

    comparing.scipy_stats()  # report a missing package before the work, not after it
    sides, to_do = [], []
    for name in (a, b):
        if (Path(name) / RUN).is_file():
            sides.append(kept(Path(name)))
            if colour and not sides[-1][0].get("colour"):
                raise UsageError(f"{name}: holds no errors of colour; evaluate it with --colour")
            continue
        if data is None:
            raise UsageError(
                f"{name}: holds no evaluation; give --data to score a model or a folder of images"
            )
        where = {"restored": Path(name)} if Path(name).is_dir() else {"weights": name}
        request = Request(
            data,
            protocol=protocol,
            degrade=degrade,
            only=tuple(only or ()),
            colour=colour,
            options=dataclasses.replace(WHOLE, device=device, precision=precision),
            **where,
        )
        to_do.append(prepare(request))
        sides.append((to_do[-1].settings, to_do[-1].scores))
    if not to_do and (data or protocol or degrade or only):
        left = "leave out --data, --protocol, --degrade and --only"
        raise UsageError(f"{a} and {b} are evaluations, which are compared as they are: {left}")
    (settings, ours), (others, theirs) = sides
    if settings["convention"] != others["convention"]:
        raise UsageError(
            f"{a} and {b} were measured by different conventions: {settings['convention']}; "
            f"and {others['convention']}"
        )
    for evaluation in to_do:
        watch(evaluation, None)
    comparison = comparing.compare(ours, theirs)
    print(f"A  {printable(a)}\nB  {printable(b)}\n{settings['convention']}")
    Console().print(*report.comparison_tables(comparison))
    for line in report.extremes(comparison, worst):
        print(printable(line))
    if any(comparison.only):
        print(
            f"maximir: not compared: {comparison.only[0]} images only in A, {comparison.only[1]} only in B",
            file=sys.stderr,
        )
    if any(comparison.only) or any(one.left_out or one.beside for one in to_do):
        raise typer.Exit(1)
