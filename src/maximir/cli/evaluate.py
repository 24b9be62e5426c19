"""`maximir evaluate`: scores by a stated protocol."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.cli.options import (
    Device,
    Ensemble,
    MaxMemory,
    Model,
    Precision,
    Scratch,
    Stages,
    Task,
    View,
    Weights,
    check_outside,
    command_line,
    model_of,
)
from maximir.errors import UsageError
from maximir.files import printable
from maximir.models.catalogue import TASKS
from maximir.restoring.options import Options

if TYPE_CHECKING:
    from maximir.evaluation.evaluate import Evaluation
    from maximir.evaluation.scores import Book


def evaluate(
    data: Annotated[
        Path,
        typer.Option(help="Folder of pairs as the dataset is downloaded, or of clean images for --degrade."),
    ],
    task: Task = None,
    model: Model = None,
    weights: Weights = None,
    restored: Annotated[
        Path | None, typer.Option(help="Score this folder of restored images instead of a model.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Default: the one that fits the data. See docs/evaluation.md.")
    ] = None,
    degrade: Annotated[
        str | None, typer.Option(help="gaussian:SIGMA, gaussian:SIGMA:file, kernel:FILE, rain, haze, …")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for report, scores and pictures; an evaluation there continues."
        ),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Also keep the restored images in OUT.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only images with such names; may be repeated."),
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N images.")] = None,
    layout: Annotated[str | None, typer.Option(help="Default: detected. See docs/evaluation.md.")] = None,
    pixels: Annotated[
        str | None, typer.Option(help="float, clipped, truncated or rounded; overrides the protocol.")
    ] = None,
    colour: Annotated[
        bool,
        typer.Option("--colour", help="Also measure errors of colour: pip install 'maximir\\[evaluate]'."),
    ] = False,
    view: View = "exact",
    stages: Stages = None,
    ensemble: Ensemble = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an evaluation in OUT.")] = False,
    device: Device = Options.device,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
) -> None:
    """Score a model, or images restored elsewhere, by a stated protocol (docs/evaluation.md)."""
    if [task, model, weights, restored].count(None) != 3:
        raise UsageError("give one of --task, --model, --weights and --restored")
    if out is None and (save or overwrite):
        raise UsageError("--save and --overwrite need --out FOLDER")
    if out is not None:
        read = [folder for folder in (data, restored) if folder is not None]
        check_outside(out, read)
        if within := [folder for folder in read if folder.resolve().is_relative_to(out.resolve())]:
            raise UsageError(f"{out}: holds {within[0]}, whose images are read; choose another folder")
    from rich.console import Console

    from maximir.evaluation import report
    from maximir.evaluation.evaluate import Request, prepare
    from maximir.evaluation.scores import Book

    name = None
    if restored is None:
        card = model_of(task, model, weights)
        name = str(card.path) if card.name in TASKS else card.name  # a task's name means its default model
    request = Request(
        data,
        weights=name,
        restored=restored,
        protocol=protocol,
        pixels=pixels,
        layout=layout,
        degrade=degrade,
        only=tuple(only or ()),
        images=images,
        options=Options(device, precision, max_memory, scratch, ensemble, view, stages),
        colour=colour,
    )
    evaluation = prepare(request, command_line())
    book = None if out is None else Book(out, evaluation.settings, overwrite=overwrite)
    watch(evaluation, book, save=save)
    summary = report.summarise(evaluation)
    if evaluation.scores:
        Console(markup=False, emoji=False).print(*report.tables(summary), sep="\n")
    print(f"{summary['convention']}; {report.coverage(summary)}")
    if out is not None:
        print(printable(report.write(evaluation, out)))
    if evaluation.left_out or evaluation.beside:
        raise typer.Exit(1)


def watch(evaluation: Evaluation, book: Book | None, *, save: bool = False) -> None:
    """Run an evaluation with progress: one line for each image and for everything that is skipped."""
    from maximir.evaluation.evaluate import run
    from maximir.evaluation.report import index
    from maximir.progress import WorkProgress
    from maximir.restoring import extent

    pixels = extent.estimate_work([(case.input or case.target).path for case in evaluation.cases])
    work = {case.name: each for case, each in zip(evaluation.cases, pixels, strict=True)}
    with WorkProgress(len(work), sum(pixels)) as progress, ExitStack() as stack:
        for what, why in evaluation.left_out:
            progress.warn(f"{what}: left out, {why}")
        for what, why in evaluation.beside:
            progress.warn(f"{what}: {why}")
        for note in evaluation.facts["notes"]:
            progress.warn(note)
        outcomes = run(
            evaluation,
            book,
            save=save,
            started=lambda case: progress.begin(case.name, work[case.name]),
            progress=progress.part,
        )
        try:
            for outcome in stack.enter_context(closing(outcomes)):
                if (score := outcome.score) is None:
                    progress.fail(f"{outcome.case.name}: left out, {outcome.error}", work[outcome.case.name])
                else:
                    before = "" if score.input_psnr is None else f"{score.input_psnr:.2f} → "
                    line = f"{score.name}  {before}{score.psnr:.2f} dB  {index(score.ssim)}"
                    if outcome.known:
                        progress.succeed(f"{line}  (known)", work[score.name], None)
                    else:
                        progress.succeed(line, work[score.name], score.seconds)
        except KeyboardInterrupt:
            kept = "" if book is None else "; run the same command again to continue"
            print(f"maximir: interrupted{kept}", file=sys.stderr)
            raise typer.Exit(130) from None
