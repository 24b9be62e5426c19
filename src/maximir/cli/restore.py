"""`maximir restore`: restore files and folders."""

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
    MaxMemory,
    Models,
    Precision,
    PresetName,
    Scratch,
    Stages,
    Strength,
    Tasks,
    View,
    Weights,
    chosen,
    command_line,
    links_of,
)
from maximir.errors import UsageError
from maximir.files import printable
from maximir.restoring.options import Options

if TYPE_CHECKING:
    import numpy as np

    from maximir.batch.plan import Job, Plan
    from maximir.restoring.base import ImageRestorer

RESUME = "Continue a stopped run: keep results that belong to the same images and settings."
SHARD = "Restore only part i of n, for job arrays; implies --resume."
LEFT = "List images not yet restored, and exit 1 if there are any; restore nothing."
RAY = "Run on a Ray cluster: its address, auto, or local to start one here. Implies --resume."
MASK = "Restore only where this image is white, and partly where it is grey; the rest stays bit for bit."
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
    task: Tasks = None,
    model: Models = None,
    weights: Weights = None,
    preset: PresetName = None,
    strength: Strength = None,
    detail: Detail = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help=MASK)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help=REPORT)] = None,
    device: Device = Options.device,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
    view: View = Options.view,
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
    from maximir.batch.outcome import Report
    from maximir.batch.plan import estimate_jobs, plan
    from maximir.batch.restore import restore as restore_planned
    from maximir.progress import WorkProgress, in_words
    from maximir.restoring.links import in_text, steps_in_text

    wanted = chosen(preset, task, model, weights, strength=strength, detail=detail)
    options = Options(
        device, precision, max_memory, scratch, ensemble, view, stages, wanted.strength, wanted.detail
    )
    links = links_of(wanted.task, wanted.model, weights)
    if left and (ray is not None or overwrite):
        raise UsageError("--left restores nothing: leave out --ray and --overwrite")
    planned = plan(inputs, output, shard=shard, shared=ray is not None, report=report)
    for line in planned.left_alone.lines():
        print(f"maximir: {printable(line)}", file=sys.stderr)
    if planned.to_file and (resume or left):
        raise UsageError("--resume needs a folder: give one as --output")
    shares = None if mask is None else load_mask(mask)
    restorer: ImageRestorer | None = None
    if ray is None:
        from maximir.restoring.opening import restorer_of

        restorer = restorer_of(links, options)
        if left:
            list_unfinished(planned, restorer, shares)
        if shard is not None and precision == "auto":
            means = "bf16 for images of 8 bits" if restorer.precision == "auto" else restorer.precision
            note = "if the shards run on machines of different kinds, give --precision fp32 or bf16"
            print(f"maximir: --precision auto means {means} here; {note}", file=sys.stderr)
    work = estimate_jobs(planned.jobs)
    failed, known, clock = 0, 0, time.monotonic()
    precisions: set[str] = set()
    try:
        with WorkProgress(len(work), sum(work.values())) as progress, ExitStack() as stack:

            def started(job: Job) -> None:
                progress.begin(job.source.name, work[job])

            if restorer is not None:
                outcomes = restore_planned(
                    planned,
                    restorer,
                    mask=shares,
                    resume=resume or shard is not None,
                    overwrite=overwrite,
                    started=started,
                    progress=progress.part,
                )
            else:
                from maximir.batch import actors as ray_actors

                outcomes = ray_actors.restore(
                    planned,
                    links,
                    options,
                    mask=shares,
                    address=ray or "",
                    overwrite=overwrite,
                    actors=actors,
                    cpus=cpus,
                    gpus=gpus,
                )
            stack.enter_context(closing(outcomes))
            lines = None if report is None else stack.enter_context(closing(Report(report, command_line())))
            for outcome in outcomes:
                job = outcome.job
                if outcome.precision is not None:
                    precisions.add(outcome.precision)
                if lines is not None:
                    lines.add(outcome)
                if outcome.known:
                    known += 1
                    progress.succeed(f"{job.source} → {job.target}  (done before)", work[job], None)
                elif outcome.error is None:
                    notes = "".join(f"  [{note}]" for note in (*steps_in_text(outcome.steps), *outcome.notes))
                    line = f"{job.source} → {job.target}  {outcome.seconds:.1f} s{notes}"
                    progress.succeed(line, work[job], outcome.seconds)
                else:
                    failed += 1
                    problem = outcome.error.removeprefix(f"{job.source}: ")
                    progress.fail(f"{job.source}: {problem}", work[job])
    except KeyboardInterrupt:  # typer would end silently
        print("maximir: interrupted; complete results are kept", file=sys.stderr)
        raise typer.Exit(130) from None
    before = f"{known} done before, " if known else ""
    took = in_words(time.monotonic() - clock)
    counts = f"{before}{len(work) - known - failed} restored, {failed} failed"
    models = f"model{'s' if len(links) > 1 else ''}: {in_text(links)}"
    facts = ", ".join([models, *sorted(precisions)])
    place = planned.jobs[0].target if planned.to_file else planned.output
    print(f"{counts}, {took}, in {place} ({facts})")
    if failed:
        raise typer.Exit(1)


def load_mask(path: Path) -> np.ndarray:
    from maximir.restoring.blending import prepare_mask

    return prepare_mask(path)


def list_unfinished(planned: Plan, restorer: ImageRestorer, mask: np.ndarray | None) -> None:
    """Print the images that are not restored yet, and exit."""
    from maximir.batch.restore import find_unfinished

    unfinished = list(find_unfinished(planned, restorer, mask))
    for job in unfinished:
        print(job.source)
    print(f"{len(unfinished)} of {len(planned.jobs)} left", file=sys.stderr)
    raise typer.Exit(1 if unfinished else 0)
