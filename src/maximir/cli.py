"""The `maximir` command: a thin layer over the library. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import io
import os
import shlex
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maximir import __version__
from maximir.errors import MaximirError, UsageError
from maximir.files import printable, reason

if TYPE_CHECKING:
    from maximir.evaluate import Evaluation
    from maximir.scores import Book

app = typer.Typer(
    name="maximir",
    help="Restore photographs with MAXIM: denoise, deblur, derain, dehaze, enhance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TASK = "denoise, deblur, derain, dehaze or enhance: the embedded model for it."
PRECISION = "fp32 (exact), or bf16: faster, half the memory."
MAX_MEMORY = "Hold at most this much, e.g. 4GB; the rest goes to scratch files, with the same result."
ENSEMBLE = "Mean over eight rotations and reflections: a little better, eight times the time."
RESUME = "Go on where a run was stopped: results that are still those of these images and settings stay."
REPORT = "Add a line of JSON for each image to this file: what became of it."
SCRATCH = "Folder for scratch files (default: the system's for temporary files)."
DEVICE = "auto, cpu, cuda, cuda:1, …"


def show_version(value: bool) -> None:
    if value:
        print(f"maximir {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def restore(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, or folders of images.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results (or one file, for one image).")
    ],
    task: Annotated[str | None, typer.Option(help=TASK)] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights instead: .safetensors, official .npz, or a model's name.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help=REPORT)] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "fp32",
    max_memory: Annotated[str | None, typer.Option(metavar="SIZE", help=MAX_MEMORY)] = None,
    scratch: Annotated[Path | None, typer.Option(help=SCRATCH)] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help=ENSEMBLE)] = False,
) -> None:
    """Restore photographs. Results keep name, format, bit depth, metadata and place in the folder."""
    from maximir import batch, catalogue
    from maximir.files import file_digest
    from maximir.journal import Journal, remove_parts, settings_digest
    from maximir.progress import WorkProgress, in_words

    if (task is None) == (weights is None):
        raise UsageError("give either --task or --weights")
    if task is not None:
        weights = catalogue.for_task(task).task
    assert weights is not None
    if "" in inputs:
        raise UsageError("an INPUT is empty; give files or folders")
    jobs = batch.plan([Path(name) for name in inputs], output)
    to_file = jobs[0].problem is None and jobs[0].target == output
    if resume and to_file:
        raise UsageError("--resume goes on in a folder; give one as --output")

    from maximir.restore import Restorer

    restorer = Restorer(weights, device, precision, max_memory, scratch=scratch, ensemble=ensemble)
    batch.check_writable(output.parent if to_file else output)
    settings = settings_digest(
        weights=file_digest(catalogue.resolve(weights)),
        precision=precision,
        ensemble=ensemble,
        version=__version__,
    )
    failed, known, clock = 0, 0, time.monotonic()
    work = {job: job.weight for job in jobs}
    try:
        with WorkProgress(len(jobs), sum(work.values())) as progress, ExitStack() as stack:
            restorer.progress = progress.part
            journal = None if to_file else stack.enter_context(Journal(output, settings, resume=resume))
            if resume:
                remove_parts({job.target.parent for job in jobs if job.problem is None})
            lines = (
                None
                if report is None
                else stack.enter_context(
                    closing(batch.Report(report, shlex.join(["maximir", *sys.argv[1:]])))
                )
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
                if lines is not None:
                    lines.add(outcome)
                if outcome.known:
                    known += 1
                    progress.succeed(f"{job.source} → {job.target}  (done before)", work[job], 0.0)
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
    print(f"{before}{len(jobs) - known - failed} restored, {failed} failed, {took}, in {output}")
    if failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    data: Annotated[
        Path,
        typer.Option(help="Folder of pairs as the dataset is downloaded; or of clean images to --degrade."),
    ],
    task: Annotated[str | None, typer.Option(help=TASK)] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights instead: .safetensors, official .npz, or a model's name.")
    ] = None,
    restored: Annotated[
        Path | None, typer.Option(help="Or a folder of restored images: only score them.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Default: what fits the data. See docs/evaluation.md.")
    ] = None,
    degrade: Annotated[
        str | None, typer.Option(help="gaussian:SIGMA, gaussian:SIGMA:file, kernel:FILE, rain, haze, …")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for report, scores and pictures; goes on there."),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the restored images in OUT, too.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Images with such names; may be repeated.")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, metavar="N", help="The first N images.")] = None,
    layout: Annotated[str | None, typer.Option(help="Default: recognised. See docs/evaluation.md.")] = None,
    pixels: Annotated[
        str | None, typer.Option(help="float, clipped, truncated or rounded: instead of the protocol's.")
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help=ENSEMBLE)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget another evaluation in OUT.")] = False,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "fp32",
    max_memory: Annotated[str | None, typer.Option(metavar="SIZE", help=MAX_MEMORY)] = None,
    scratch: Annotated[Path | None, typer.Option(help=SCRATCH)] = None,
) -> None:
    """Score a model, or images that others restored, by a stated protocol (docs/evaluation.md)."""
    if [task, weights, restored].count(None) != 2:
        raise UsageError("give one of --task, --weights and --restored")
    if out is None and (save or overwrite):
        raise UsageError("--save and --overwrite need --out FOLDER")
    for folder in (data, restored):
        if out is not None and folder is not None and out.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{out}: is in {folder}, and so would its pictures be; choose another folder")
    from rich.console import Console

    from maximir import catalogue, report
    from maximir.evaluate import Request, prepare
    from maximir.scores import Book

    request = Request(
        data,
        weights if task is None else catalogue.for_task(task).task,
        restored,
        protocol,
        pixels,
        layout,
        degrade,
        tuple(only or ()),
        images,
        ensemble,
        device,
        precision,
        max_memory,
        scratch,
    )
    evaluation = prepare(request, shlex.join(["maximir", *sys.argv[1:]]))
    book = None if out is None else Book(out, evaluation.settings, overwrite=overwrite)
    watch(evaluation, book, save=save)
    summary = report.summarise(evaluation)
    if evaluation.scores:
        Console(markup=False, emoji=False).print(report.table(summary))
    print(f"{summary['convention']}; {report.coverage(summary)}")
    if out is not None:
        print(printable(report.write(evaluation, out)))
    if evaluation.left_out:
        raise typer.Exit(1)


def watch(evaluation: Evaluation, book: Book | None, *, save: bool = False) -> None:
    """Run an evaluation: progress, and a line for each image and for what is left out."""
    from maximir.evaluate import run
    from maximir.progress import WorkProgress

    count = len(evaluation.cases)
    with WorkProgress(count, count) as progress, ExitStack() as stack:
        for what, why in evaluation.left_out:
            progress.warn(f"{what}: left out, {why}")
        if evaluation.restorer is not None:
            evaluation.restorer.progress = progress.part
        outcomes = run(evaluation, book, save=save, started=lambda case: progress.begin(case.name, 1))
        try:
            for outcome in stack.enter_context(closing(outcomes)):
                if (score := outcome.score) is None:
                    progress.fail(f"{outcome.case.name}: left out, {outcome.error}", 1)
                else:
                    before = "" if score.input_psnr is None else f"{score.input_psnr:.2f} → "
                    line = f"{score.name}  {before}{score.psnr:.2f} dB  {score.ssim:.4f}"
                    progress.succeed(line + ("  (known)" if outcome.known else ""), 1, score.seconds)
        except KeyboardInterrupt:
            kept = "" if book is None else "; the same command goes on from here"
            print(f"maximir: interrupted{kept}", file=sys.stderr)
            raise typer.Exit(130) from None


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(help="A folder from `evaluate --out`; or, with --data, a model or images.")
    ],
    b: Annotated[str, typer.Argument(help="The same.")],
    data: Annotated[Path | None, typer.Option(help="As for `evaluate`.")] = None,
    protocol: Annotated[str | None, typer.Option(help="As for `evaluate`.")] = None,
    degrade: Annotated[str | None, typer.Option(help="As for `evaluate`.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="As for `evaluate`.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="Images to list at either end.")] = 3,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "fp32",
) -> None:
    """Is B better than A? Paired differences, image by image, with a 95 % confidence interval."""
    from rich.console import Console

    from maximir import compare as comparing
    from maximir import report
    from maximir.evaluate import Request, prepare
    from maximir.scores import RUN, kept

    comparing.scipy_stats()  # rather miss it now than after the work
    sides, to_do = [], []
    for name in (a, b):
        if (Path(name) / RUN).is_file():
            sides.append(kept(Path(name)))
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
            device=device,
            precision=precision,
            **where,
        )
        to_do.append(prepare(request))
        sides.append((to_do[-1].settings, to_do[-1].scores))
    (settings, ours), (others, theirs) = sides
    if settings["convention"] != others["convention"]:
        raise UsageError(
            f"{a} and {b} are measured by different conventions: {settings['convention']}; "
            f"and {others['convention']}"
        )
    for evaluation in to_do:
        watch(evaluation, None)
    comparison = comparing.compare(ours, theirs)
    print(f"A  {printable(a)}\nB  {printable(b)}\n{settings['convention']}")
    Console().print(report.comparison_table(comparison))
    for line in report.extremes(comparison, worst):
        print(printable(line))
    if any(comparison.only):
        print(
            f"maximir: not compared: {comparison.only[0]} images that only A has, {comparison.only[1]} of B",
            file=sys.stderr,
        )
    if any(comparison.only) or any(evaluation.left_out for evaluation in to_do):
        raise typer.Exit(1)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="An official .npz checkpoint.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Convert an official checkpoint to safetensors, every parameter checked."""
    from maximir.checkpoint import load_model, save_model

    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: the output must be named .safetensors")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; use --overwrite to replace it")
    model = load_model(checkpoint)
    save_model(model, output, half=half)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{output}: {describe(model.config)}, {parameters / 1e6:.2f} M parameters")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.")],
    out: Annotated[Path, typer.Option(help="The run's folder. An unfinished run there goes on.")] = Path(
        "run"
    ),
    data: Annotated[
        list[Path] | None, typer.Option(help="Clean photographs: a folder or a .tar shard; may be repeated.")
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pairs: a folder with input/ and target/, a .tar shard or a .txt list; may be repeated."
        ),
    ] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Clean images to measure on while training; may be repeated.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from these weights: .safetensors, official .npz, or a model's name."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the recipe (value in TOML)."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Do not train: foresee memory, speed and hours on this machine.")
    ] = False,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare samples.")] = 0,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts in which a batch is computed.")] = 1,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Less memory: compute activations again for the gradients.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    shard: Annotated[bool, typer.Option("--shard", help="Under torchrun: FSDP2 instead of DDP.")] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between states to go on from.")] = 250,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between lines of the log.")] = 50,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
) -> None:
    """Train a model by a recipe (docs/training.md). With several processes: torchrun … -m maximir train …"""
    from maximir.recipe import load_recipe
    from maximir.run import Execution

    changes = dict(parse_override(item) for item in override or [])
    if init is not None:
        changes["init"] = init
    chosen = load_recipe(recipe, changes)
    execution = Execution(device, workers, accumulate, recompute, compile, shard)
    if plan:
        from maximir.plan import print_plan

        print_plan(chosen, data or [], pairs or [], execution)
        return

    from maximir.train import Every
    from maximir.train import train as run

    run(
        chosen,
        data or [],
        out,
        pairs=pairs or [],
        validation=validation or [],
        execution=execution,
        every=Every(log_every, validate_every, save_every),
    )


@app.command()
def degrade(
    inputs: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of clean photographs.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A contact sheet (.png, .jpg, .webp); or a folder for pairs."),
    ],
    names: Annotated[
        list[str] | None,
        typer.Option("--with", help="Degradation (default: all); may be repeated. See docs/training.md."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Versions of a photograph on the sheet.")] = 6,
    side: Annotated[int, typer.Option(min=64, help="Pixels of a photograph that the sheet shows.")] = 256,
    rows: Annotated[int, typer.Option(min=1, help="Photographs on the sheet, spread over the folders.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Spoil clean photographs as in training: a contact sheet to look at, or pairs to test with."""
    from maximir.data import find_scenes
    from maximir.degradations import DEGRADATIONS
    from maximir.sheet import PICTURES, contact_sheet, save_picture, write_pairs

    chosen = names or list(DEGRADATIONS)
    if unknown := [name for name in chosen if name not in DEGRADATIONS]:
        raise UsageError(f"unknown degradation {unknown[0]!r}: choose of {', '.join(DEGRADATIONS)}")
    scenes = find_scenes(inputs)
    if output.suffix.lower() in PICTURES:
        scenes = scenes[:: max(1, len(scenes) // rows)][:rows]
        save_picture(contact_sheet(scenes, chosen, count, side, seed), output)
        print(f"{output}: {len(scenes)} photographs, clean and {count} times degraded: {', '.join(chosen)}")
    else:
        written = write_pairs(scenes, chosen, output, seed)
        print(f"{output}: {written} pairs in input/ and target/")


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; but for loopback, only with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="MAXIMIR_TOKEN", help="Secret that clients must send; safer in the environment."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Host name by which a proxy makes it known; may be repeated."),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Images at most that wait or are computed.")] = 16,
    max_bytes: Annotated[str, typer.Option(metavar="SIZE", help="Of an uploaded image.")] = "64MB",
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = 50_000_000,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that computing an image may take.")] = 900,
    device: Annotated[
        list[str] | None,
        typer.Option(help=f"{DEVICE} (default: auto); may be repeated: a process for each."),
    ] = None,
    precision: Annotated[str, typer.Option(help=PRECISION)] = "fp32",
    max_memory: Annotated[str | None, typer.Option(metavar="SIZE", help=MAX_MEMORY)] = None,
    scratch: Annotated[Path | None, typer.Option(help=SCRATCH)] = None,
) -> None:
    """Restore photographs by HTTP, with a web page (docs/service.md). Ctrl-C or SIGTERM ends it."""
    from maximir.service.settings import Settings
    from maximir.sizes import parse_size

    settings = Settings(
        host=host,
        port=port,
        token=token or None,
        names=tuple(each.lower() for each in name or ()),
        queue=queue,
        max_bytes=parse_size(max_bytes),
        max_pixels=max_pixels,
        timeout=timeout,
        devices=tuple(device or ["auto"]),
        precision=precision,
        max_memory=max_memory,
        scratch=scratch,
    )
    try:
        from maximir.service import server
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'maximir[serve]'") from error
    server.serve(settings)


@app.command()
def info(
    size: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Foresee memory and time for images of this size."),
    ] = None,
    task: Annotated[str | None, typer.Option(help=TASK)] = None,
    weights: Annotated[str | None, typer.Option(help="Weights instead of a task.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "fp32",
    max_memory: Annotated[str | None, typer.Option(metavar="SIZE", help=MAX_MEMORY)] = None,
    scratch: Annotated[Path | None, typer.Option(help=SCRATCH)] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help=ENSEMBLE)] = False,
) -> None:
    """List models and variants; with --size, foresee what an image takes on this machine."""
    if size is not None:
        foresee(size, task, weights, device, precision, max_memory, scratch, ensemble)
        return
    if task or weights or max_memory or scratch or ensemble:
        raise UsageError("give --size WIDTHxHEIGHT to foresee what an image takes")
    from rich.console import Console
    from rich.table import Table

    from maximir import catalogue, kernels
    from maximir.config import VARIANTS

    console = Console(highlight=False)
    console.print("Embedded models (cards: src/maximir/weights). Reached: PSNR, held-out images")
    models = Table.grid(padding=(0, 2))
    for model in catalogue.MODELS:
        size = f"{model.path.stat().st_size / 1e6:.1f} MB" if model.path.exists() else "missing"
        models.add_row()
        models.add_row(f"[bold]{model.task}", "for", model.summary)
        models.add_row("", "trained on", f"{model.data}; {model.hours}")
        models.add_row("", "reaches", f"{model.results} dB")
        models.add_row("", "limits", model.limits)
        models.add_row("", "weights", f"{size}, {model.licence}")
    console.print(models)
    console.print()
    variants = Table("variant", "features", "stages", title="Official variants", title_justify="left")
    for name, config in VARIANTS.items():
        variants.add_row(name, str(config.features), str(config.stages))
    console.print(variants)
    library = kernels.library()
    console.print(f"native kernels: {Path(library._name).stem if library else 'none, torch does it all'}")


def foresee(
    size: str,
    task: str | None,
    weights: str | None,
    device: str,
    precision: str,
    max_memory: str | None,
    scratch: Path | None,
    ensemble: bool,
) -> None:
    """Print what `maximir restore` will take for an image of this size."""
    from maximir import catalogue, memory, sizes
    from maximir.progress import in_words

    height, width = sizes.parse_pixels(size)
    if (task is None) == (weights is None):
        raise UsageError("give either --task or --weights")
    name = weights if task is None else catalogue.for_task(task).task
    assert name is not None

    from maximir import images  # noqa: F401  as `restore` does: part of what the process holds
    from maximir.restore import Restorer

    restorer = Restorer(name, device, precision, max_memory, scratch=scratch, ensemble=ensemble)
    foreseen = memory.foresee(restorer, height, width)
    print(f"{name}, {width} x {height} pixels, {precision}, {restorer.device}")
    print(f"memory  {sizes.in_words(foreseen.peak)}", end="")
    if foreseen.scratch:
        print(f", and up to {sizes.in_words(foreseen.scratch)} in scratch files", end="")
    print(f" (at least {sizes.in_words(foreseen.least)})")
    print(f"time    about {in_words(foreseen.seconds)}, reckoned from {foreseen.sample} on this machine")


def parse_override(item: str) -> tuple[str, Any]:
    import tomllib

    try:
        ((key, value),) = tomllib.loads(item).items()
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise UsageError(f"--set {item}: must be KEY=VALUE with a TOML value, e.g. steps=100") from error
    return key, value


def describe(config: Any) -> str:
    from maximir.config import VARIANTS

    for name, variant in VARIANTS.items():
        if variant == config:
            return f"MAXIM {name}"
    return f"MAXIM with {config.features} features, {config.stages} stage(s)"


def main() -> None:
    """Run the command; errors are one sentence on standard error and the exit status of the contract."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may hold what the terminal cannot show
    # Threads that wait for each other in long busy loops, OpenMP's default, crawl beside any other program:
    # an image took 10 s instead of 2 on two processors. Short loops cost little. (Before torch is imported.)
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except MaximirError as error:
        print(f"maximir: {printable(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:  # standard output is full or closed
        print(f"maximir: {printable(reason(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("maximir: interrupted", file=sys.stderr)
        sys.exit(130)
