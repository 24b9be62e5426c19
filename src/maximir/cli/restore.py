"""`maximir restore`: restore files and folders."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated, BinaryIO

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
from maximir.errors import MaximirError, UsageError
from maximir.files import STREAM, printable
from maximir.restoring.options import Options

if TYPE_CHECKING:
    import numpy as np

    from maximir.batch.plan import Job, Plan
    from maximir.restoring.base import ImageRestorer

FORMAT = "With -o -: png, jpeg, webp, tiff or avif (default: that of the source, or png)."
IN_PLACE = "Replace the photographs by their results; keep the original of NAME as NAME.original."
RESUME = "Continue a stopped run: keep results that belong to the same images and settings."
SHARD = "Restore only part i of n, for job arrays; implies --resume."
LEFT = "List images not yet restored, and exit 1 if there are any; restore nothing."
RAY = "Run on a Ray cluster: its address, auto, or local to start one here. Implies --resume."


def restore(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Images, folders of images, or addresses: s3://…; -: standard input."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Folder or address for the results; for one image, a file, or -."
        ),
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help=IN_PLACE)] = False,
    task: Tasks = None,
    model: Models = None,
    weights: Weights = None,
    preset: PresetName = None,
    strength: Strength = None,
    detail: Detail = None,
    mask: Mask = None,
    format: Annotated[str | None, typer.Option(metavar="FORMAT", help=FORMAT)] = None,
    keep_times: KeepTimes = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    report: ReportFile = None,
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
    from maximir.batch.in_place import plan_in_place
    from maximir.batch.neighbours import KEPT
    from maximir.batch.outcome import Report
    from maximir.batch.plan import estimate_jobs, plan
    from maximir.batch.restore import restore as restore_planned
    from maximir.progress import WorkProgress, in_words
    from maximir.restoring.links import in_text

    wanted = chosen(preset, task, model, weights, strength=strength, detail=detail)
    options = Options(
        device, precision, max_memory, scratch, ensemble, view, stages, wanted.strength, wanted.detail
    )
    links = links_of(wanted.task, wanted.model, weights)
    if left and (ray is not None or overwrite):
        raise UsageError("--left restores nothing: leave out --ray and --overwrite")
    if ray is None and (actors is not None or cpus != 1 or gpus):
        raise UsageError("--actors, --cpus and --gpus are for --ray")
    if format is not None and output != STREAM:
        raise UsageError(
            "--format is for -o -; results in a folder keep their formats, "
            "and the name of a file states its own"
        )
    if in_place:
        if output is not None or overwrite or resume or shard is not None or ray is not None or left:
            refused = "--output, --overwrite, --resume, --shard, --ray and --left"
            raise UsageError(f"--in-place, which keeps originals, cannot be combined with {refused}")
        if STREAM in inputs:
            raise UsageError("--in-place is for files on disks; for standard input, give --output")
        planned = plan_in_place(inputs, report)
    elif output is None:
        raise UsageError("give --output, a folder or a file for the results, or --in-place")
    elif STREAM in (output, *inputs):
        if len(inputs) > 1 or shard is not None or ray is not None or left:
            raise UsageError("- stands for one photograph: leave out other inputs, --shard, --ray and --left")
        planned = plan_one(inputs[0], output, format, options.max_bytes)
    else:
        planned = plan(inputs, output, shard=shard, shared=ray is not None, report=report)
    for line in planned.left_alone.lines():
        print(f"maximir: {printable(line)}", file=sys.stderr)
    if planned.to_file and (resume or left):
        raise UsageError("--resume needs a folder: give one as --output")
    shares = shares_of(mask)
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
    tally, clock = Tally(), time.monotonic()
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
                    overwrite=overwrite or in_place,
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
            for outcome in follow(outcomes, work, progress, lines, tally, keep_times=keep_times):
                missing = len(work) - tally.restored - tally.known - tally.failed
                if outcome.disk_full and missing:  # they would be computed in vain
                    again = "" if in_place or shard is not None or ray is not None else " with --resume"
                    raise MaximirError(
                        f"the disk is full: stopped before {missing} of {len(work)} images; "
                        f"make room, then repeat the command{again}"
                    )
    except KeyboardInterrupt:  # typer would end silently
        print("maximir: interrupted; complete results are kept", file=sys.stderr)
        raise typer.Exit(130) from None
    took = in_words(time.monotonic() - clock)
    models = f"model{'s' if len(links) > 1 else ''}: {in_text(links)}"
    facts = ", ".join([models, *sorted(tally.precisions)])
    place = f"in {planned.jobs[0].target if planned.to_file else planned.output}"
    if output == STREAM:
        place = "to standard output"
    if in_place:
        place = f"in place; originals are kept as NAME{KEPT}"
    summary = f"{tally.in_text()}, {took}, {place} ({facts})"
    print(summary, file=sys.stderr if output == STREAM else sys.stdout)
    if tally.failed:
        raise typer.Exit(1)


def plan_one(source: str, output: str, kind: str | None, max_bytes: int | None) -> Plan:
    """Plan a photograph from or to a standard stream.

    Raises:
        UsageError: the stream is a terminal, or the request makes no sense.
    """
    from maximir import images
    from maximir.batch.streams import plan_stream

    if kind is not None and kind not in images.KINDS.values():
        kinds = ", ".join(dict.fromkeys(images.KINDS.values()))
        raise UsageError(f"--format {kind}: with -o -, give one of {kinds}")
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:  # so Python shows one that was closed
            raise UsageError(f"standard {name} is closed")
    if source == STREAM and sys.stdin.isatty():
        raise UsageError("- is standard input, which is a terminal: redirect a photograph into it")
    if output == STREAM and sys.stdout.isatty():
        raise UsageError("-o - is standard output, which is a terminal: redirect it into a file or a pipe")
    stdout = private_output() if output == STREAM else None
    return plan_stream(source, output, kind, sys.stdin.buffer, stdout, max_bytes)


def private_output() -> BinaryIO:
    """Return a stream to standard output for us alone: what libraries print goes to standard error."""
    sys.stdout.flush()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return output


def list_unfinished(planned: Plan, restorer: ImageRestorer, mask: np.ndarray | None) -> None:
    """Print the images that are not restored yet, and exit."""
    from maximir.batch.restore import find_unfinished

    unfinished = list(find_unfinished(planned, restorer, mask))
    for job in unfinished:
        print(job.source)
    print(f"{len(unfinished)} of {len(planned.jobs)} left", file=sys.stderr)
    raise typer.Exit(1 if unfinished else 0)
