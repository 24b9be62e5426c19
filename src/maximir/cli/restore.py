"""`maximir restore`: files and folders through a model."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer

from maximir import __version__
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
    command_line,
    model_of,
)
from maximir.errors import UsageError

RESUME = "Go on where a run was stopped: results that are still those of these images and settings stay."
REPORT = "Add a line of JSON for each image to this file: what became of it."


def restore(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, or folders of images.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results (or one file, for one image).")
    ],
    task: Task = None,
    model: Model = None,
    weights: Weights = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help=REPORT)] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
    view: View = "auto",
    stages: Stages = None,
    ensemble: Ensemble = False,
) -> None:
    """Restore photographs. Results keep name, format, bit depth, metadata and place in the folder."""
    from maximir.files import file_digest
    from maximir.progress import WorkProgress, in_words
    from maximir.restoring import batch, extent
    from maximir.restoring.journal import Journal, remove_parts, settings_digest

    chosen = model_of(task, model, weights)
    if "" in inputs:
        raise UsageError("an INPUT is empty; give files or folders")
    jobs = batch.plan([Path(name) for name in inputs], output)
    to_file = jobs[0].problem is None and jobs[0].target == output
    if resume and to_file:
        raise UsageError("--resume goes on in a folder; give one as --output")

    from maximir.restoring.restorer import Restorer

    restorer = Restorer(
        chosen.path,
        device=device,
        precision=precision,
        max_memory=max_memory,
        scratch=scratch,
        ensemble=ensemble,
        view=view,
        stages=stages,
    )
    batch.check_writable(output.parent if to_file else output)
    settings = settings_digest(
        weights=file_digest(chosen.path),
        precision=restorer.precision,  # of "auto", what it means on this machine
        ensemble=ensemble,
        view=view,
        version=__version__,
        **({} if stages is None else {"stages": stages}),
    )
    failed, known, clock = 0, 0, time.monotonic()
    precisions: set[str] = set()
    work = dict(zip(jobs, extent.weights([job.source for job in jobs]), strict=True))
    try:
        with WorkProgress(len(jobs), sum(work.values())) as progress, ExitStack() as stack:
            restorer.progress = progress.part
            journal = None if to_file else stack.enter_context(Journal(output, settings, resume=resume))
            if resume:
                remove_parts({job.target.parent for job in jobs if job.problem is None})
            lines = (
                None if report is None else stack.enter_context(closing(batch.Report(report, command_line())))
            )
            outcomes = batch.restore_files(
                restorer,
                jobs,
                overwrite=overwrite,
                journal=journal,
                started=lambda job: progress.begin(job.source.name, work[job]),
            )
            for outcome in stack.enter_context(closing(outcomes)):
                job = outcome.job
                if outcome.precision is not None:
                    precisions.add(outcome.precision)
                if lines is not None:
                    lines.add(outcome)
                if outcome.known:
                    known += 1
                    progress.succeed(f"{job.source} → {job.target}  (done before)", work[job], None)
                elif outcome.error is None:
                    notes = "".join(f"  [{note}]" for note in outcome.notes)
                    line = f"{job.source} → {job.target}  {outcome.seconds:.1f} s{notes}"
                    progress.succeed(line, work[job], outcome.seconds)
                else:
                    failed += 1
                    progress.fail(f"{job.source}: {outcome.error}", work[job])
    except KeyboardInterrupt:  # typer would end without a word
        print("maximir: interrupted; results that are complete stay", file=sys.stderr)
        raise typer.Exit(130) from None
    before = f"{known} done before, " if known else ""
    took = in_words(time.monotonic() - clock)
    counts = f"{before}{len(jobs) - known - failed} restored, {failed} failed"
    facts = ", ".join([f"model: {chosen.name}", *sorted(precisions)])
    print(f"{counts}, {took}, in {output} ({facts})")
    if failed:
        raise typer.Exit(1)
