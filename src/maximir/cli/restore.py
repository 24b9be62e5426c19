"""`maximir restore`: restore files and folders."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from maximir.restoring.batch import Outcome, Planned

RESUME = "Continue a stopped run: keep results that belong to the same images and settings."
SHARD = "Restore only part i of n, for job arrays; implies --resume."
LEFT = "List images not yet restored, and exit 1 if there are any; restore nothing."
RAY = "Run on a Ray cluster: its address, auto, or local to start one here. Implies --resume."
REPORT = "Append one line of JSON per image to this file: the outcome."


def restore(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, folders of images, or addresses: s3://…."),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder or address for the results; for one image, a file."),
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
    shard: Annotated[str | None, typer.Option(metavar="i/n", help=SHARD)] = None,
    left: Annotated[bool, typer.Option("--left", help=LEFT)] = False,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help=RAY)] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="With --ray: maximum number of models (default: all that fit).")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="With --ray: CPUs per model replica.")] = 1,
    gpus: Annotated[
        float, typer.Option(min=0, help="With --ray: GPUs per model replica; 0.5: two share one.")
    ] = 0,
) -> None:
    """Restore photographs. Results keep name, format, bit depth, metadata and place in the folder."""
    from maximir.files import file_digest
    from maximir.progress import WorkProgress, in_words
    from maximir.restoring import batch, extent, stored
    from maximir.restoring.journal import NAME, Journal, remove_parts, settings_digest
    from maximir.restoring.records import FOLDER, Records
    from maximir.stores import Store, is_address, local_path, shown

    chosen = model_of(task, model, weights)
    if "" in inputs:
        raise UsageError("an INPUT is empty; give files or folders")
    if left and (ray is not None or overwrite):
        raise UsageError("--left restores nothing: leave out --ray and --overwrite")
    inputs, output = [local_path(name) for name in inputs], local_path(output)
    folder, paths = Path(output), [Path(name) for name in inputs]
    apart = ray is not None or shard is not None or any(map(is_address, [*inputs, output]))
    shared = apart or (folder / FOLDER).is_dir()  # a folder with records from such a run keeps them
    store, here, there = None, [], []
    if shared:
        store = Store(output)
        there = stored.plan(inputs, store)
        there = there if shard is None else stored.shard_of(there, shard)
    else:
        here = batch.plan(paths, folder)
    to_file = not shared and here[0].problem is None and here[0].target == folder
    if (resume or left) and to_file:
        raise UsageError("--resume needs a folder: give one as --output")
    jobs: Sequence[Planned] = there if shared else here
    from maximir.restoring.restorer import Restorer

    if shared and precision == "auto":
        precision = "fp32"  # all machines that share the work must agree
    options: dict[str, Any] = {
        "precision": precision,
        "max_memory": max_memory,
        "scratch": scratch,
        "ensemble": ensemble,
        "view": view,
        "stages": stages,
    }
    # With --ray too, so that wrong options are reported at once.
    restorer = Restorer(chosen.path, device="cpu" if ray is not None else device, **options)
    settings = settings_digest(
        weights=file_digest(chosen.path),
        precision=restorer.precision,  # for "auto", its meaning on this machine
        ensemble=ensemble,
        view=view,
        version=__version__,
        **({} if stages is None else {"stages": stages}),
    )
    resume = resume or ray is not None or shard is not None or left
    records = Records(store, settings, resume=resume, order=[job.target for job in there]) if store else None
    if left:
        undone: Sequence[Planned] = here
        if records is not None:
            undone = list(stored.left(there, records))
        elif (folder / NAME).exists():
            with Journal(folder, settings, resume=True) as old:
                undone = [job for job in here if not batch.is_done(job, old)]
        for job in undone:
            print(job.source)
        print(f"{len(undone)} of {len(jobs)} left", file=sys.stderr)
        raise typer.Exit(1 if undone else 0)

    if store is not None:
        store.check_writable()
    else:
        batch.check_writable(folder.parent if to_file else folder)
    sizes = stored.weights(there) if shared else extent.weights([job.source for job in here])
    work = dict(zip(jobs, sizes, strict=True))
    failed, known, clock = 0, 0, time.monotonic()
    precisions: set[str] = set() if store is None else {precision}
    try:
        with WorkProgress(len(jobs), sum(work.values())) as progress, ExitStack() as stack:
            restorer.progress = progress.part

            def started(job: Planned) -> None:
                progress.begin(job.source.name, work[job])

            journal = None
            if not shared and not to_file:
                journal = stack.enter_context(Journal(folder, settings, resume=resume))
            if resume and not shared:
                remove_parts({job.target.parent for job in here if job.problem is None})
            lines = (
                None if report is None else stack.enter_context(closing(batch.Report(report, command_line())))
            )
            outcomes: Generator[Outcome, None, None]
            if store is None or records is None:
                outcomes = batch.restore_files(
                    restorer, here, overwrite=overwrite, journal=journal, started=started
                )
            elif ray is None:
                outcomes = stored.restore_files(
                    restorer, there, overwrite=overwrite, records=records, started=started
                )
            else:
                from maximir.restoring import actors as ray_actors

                outcomes = ray_actors.restore(
                    there,
                    store,
                    settings,
                    chosen.path,
                    {"device": device, **options},
                    address=ray,
                    overwrite=overwrite,
                    actors=actors,
                    cpus=cpus,
                    gpus=gpus,
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
    except KeyboardInterrupt:  # typer would end silently
        print("maximir: interrupted; complete results are kept", file=sys.stderr)
        raise typer.Exit(130) from None
    before = f"{known} done before, " if known else ""
    took = in_words(time.monotonic() - clock)
    counts = f"{before}{len(jobs) - known - failed} restored, {failed} failed"
    facts = ", ".join([f"model: {chosen.name}", *sorted(precisions)])
    print(f"{counts}, {took}, in {shown(output)} ({facts})")
    if failed:
        raise typer.Exit(1)
