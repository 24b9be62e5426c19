"""`maximir watch`: restore photographs that arrive in a folder."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.cli.options import (
    Detail,
    Device,
    Ensemble,
    KeepTimes,
    Mask,
    MaxMemory,
    Models,
    Precision,
    PresetName,
    ReportFile,
    Scratch,
    Stages,
    Strength,
    Tasks,
    View,
    Weights,
    chosen,
    command_line,
    links_of,
    shares_of,
)
from maximir.cli.outcomes import Tally, follow
from maximir.errors import MaximirError
from maximir.files import printable
from maximir.restoring.options import Options

if TYPE_CHECKING:
    from maximir.batch.plan import Job, Plan

POLL = "Check the folder every SECONDS instead of waiting for the system's events: for network drives."
SETTLE = "Take a file as complete once it has not changed for SECONDS."


def watch(
    inbox: Annotated[Path, typer.Argument(metavar="INBOX", help="The folder to watch, with those below it.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or address for the results.")],
    task: Tasks = None,
    model: Models = None,
    weights: Weights = None,
    preset: PresetName = None,
    strength: Strength = None,
    detail: Detail = None,
    mask: Mask = None,
    poll: Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help=POLL)] = None,
    settle: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help=SETTLE)] = 2.0,
    keep_times: KeepTimes = False,
    report: ReportFile = None,
    device: Device = Options.device,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
    view: View = Options.view,
    stages: Stages = None,
    ensemble: Ensemble = False,
) -> None:
    """Restore photographs as they arrive in a folder, until interrupted; a restart continues."""
    from maximir.batch import watch as watching
    from maximir.batch.journal import settings_of
    from maximir.batch.outcome import Report
    from maximir.batch.plan import estimate_jobs
    from maximir.batch.restore import restore
    from maximir.progress import WorkProgress
    from maximir.restoring.links import in_text
    from maximir.restoring.opening import restorer_of

    arrivals = watching.Inbox(inbox, output, settle, report)
    wanted = chosen(preset, task, model, weights, strength=strength, detail=detail)
    options = Options(
        device, precision, max_memory, scratch, ensemble, view, stages, wanted.strength, wanted.detail
    )
    links = links_of(wanted.task, wanted.model, weights)
    first = arrivals.look()
    shares = shares_of(mask)
    restorer = restorer_of(links, options)
    first.output.check_writable()
    with first.open_journal(settings_of(restorer, shares), resume=True):
        pass

    def restore_batch(planned: Plan, lines: Report | None) -> None:
        work = estimate_jobs(planned.jobs)
        with WorkProgress(len(work), sum(work.values())) as progress, ExitStack() as stack:

            def started(job: Job) -> None:
                progress.begin(job.source.name, work[job])

            outcomes = restore(
                planned, restorer, mask=shares, resume=True, started=started, progress=progress.part
            )
            stack.enter_context(closing(outcomes))
            for outcome in follow(outcomes, work, progress, lines, Tally(), keep_times=keep_times):
                line = arrivals.finish(outcome)
                if outcome.disk_full:  # the others of this batch would be computed in vain
                    raise MaximirError(f"{first.output}: the disk is full")
                if line is not None:
                    progress.warn(line)

    try:
        with ExitStack() as stack:
            lines = None if report is None else stack.enter_context(closing(Report(report, command_line())))
            waiter = stack.enter_context(
                watching.Polling(poll) if poll is not None else watching.Events(inbox)
            )
            tell(f"watching {inbox}, results in {first.output} ({in_text(links)})")
            while True:
                wait = arrivals.patience()
                jobs: list[Job] = []
                try:
                    planned = arrivals.look()
                    jobs = list(planned.jobs)
                    if jobs:
                        restore_batch(planned, lines)
                    wait = arrivals.patience()
                except MaximirError as error:  # a full disk, a drive that is gone, another run
                    tell(f"{error}; tried again in {watching.RETRY:.0f} s")
                    arrivals.postpone(jobs)
                    time.sleep(watching.RETRY)
                    continue
                waiter.wait(wait)
    except KeyboardInterrupt:  # typer would end silently
        tell("interrupted; complete results are kept, and the same command continues")
        raise typer.Exit(130) from None


def tell(line: str) -> None:
    print(f"maximir: {printable(line)}", file=sys.stderr, flush=True)
