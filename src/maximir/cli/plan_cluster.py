"""`maximir plan-cluster`: estimate hours and cost for millions of photographs before renting machines."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.cli.options import Device, Model, Precision, Stages, Task, View, Weights, model_of
from maximir.errors import UsageError
from maximir.restoring.options import Options

if TYPE_CHECKING:
    from maximir.cluster import Cluster, Kind, Outcome

WORKERS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
WIDTH = 100  # of the table when there is no terminal


def plan_cluster(
    images: Annotated[int, typer.Option(min=1, help="Number of photographs.")],
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WIDTHxHEIGHT[=SHARE]",
            help="Size of the photographs, and the share that has it; may be repeated: 6000x4000=70.",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="REPORT",
            help="Instead: take sizes and seconds from this report of a sample (`restore --report`).",
        ),
    ] = None,
    task: Task = None,
    model: Model = None,
    weights: Weights = None,
    seconds_per_megapixel: Annotated[
        float | None,
        typer.Option(help="Computing speed of a worker, instead of timing a model on this machine."),
    ] = None,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Number of workers; may be repeated.")
    ] = None,
    price: Annotated[float, typer.Option(min=0, help="Price of a worker-hour, in your currency.")] = 0.0,
    price_per_gb: Annotated[
        float, typer.Option(min=0, help="Price of a GB read from the store or written to it.")
    ] = 0.0,
    within: Annotated[
        float | None,
        typer.Option(metavar="HOURS", help="Find the number of workers that finish in this time."),
    ] = None,
    bandwidth: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Bytes per second of the store, in each direction, for all workers."
        ),
    ] = "1GB",
    link: Annotated[
        str, typer.Option(metavar="SIZE", help="Bytes per second between a worker and the store.")
    ] = "125MB",
    latency: Annotated[
        float, typer.Option(min=0, help="Seconds of latency per request to the store.")
    ] = 0.05,
    read: Annotated[
        str, typer.Option(metavar="SIZE", help="Bytes read per megapixel of a photograph.")
    ] = "0.5MB",
    written: Annotated[
        str, typer.Option(metavar="SIZE", help="Bytes written per megapixel of a result.")
    ] = "1MB",
    listing: Annotated[float, typer.Option(help="Names per second that the store lists.")] = 5000.0,
    handing: Annotated[float, typer.Option(min=0, help="Seconds of the driver per photograph.")] = 0.001,
    shards: Annotated[
        bool,
        typer.Option("--shards", help="No driver: each worker has a fixed share, as with `--shard i/n`."),
    ] = False,
    start: Annotated[float, typer.Option(min=0, help="Seconds until a worker is ready.")] = 60.0,
    losses: Annotated[float, typer.Option(min=0, help="Expected failures per worker-hour.")] = 0.01,
    back: Annotated[float, typer.Option(min=0, help="Seconds until a lost worker is replaced.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random sizes and failures.")] = 0,
    device: Device = Options.device,
    precision: Precision = Options.precision,
    view: View = Options.view,
    stages: Stages = None,
) -> None:
    """Estimate hours and cost on a cluster: the best number of workers, and what limits more of them."""
    from maximir import cluster as clusters
    from maximir import sizes

    numbers = {
        "--seconds-per-megapixel": seconds_per_megapixel,
        "--within": within,
        "--latency": latency,
        "--listing": listing,
        "--handing": handing,
        "--start": start,
        "--losses": losses,
        "--back": back,
    }
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            raise UsageError(f"{name} must be a finite number, not {number}")
    if listing <= 0:
        raise UsageError("--listing must be more than 0 names a second")
    if within is not None and within <= 0:
        raise UsageError("--within must be more than 0 hours")
    amounts = {"--bandwidth": bandwidth, "--link": link, "--read": read, "--written": written}
    amount = {name: sizes.parse_size(text) for name, text in amounts.items()}
    if not amount["--bandwidth"] or not amount["--link"]:
        raise UsageError("--bandwidth and --link must be more than 0 bytes a second")
    cluster = clusters.Cluster(
        bandwidth=amount["--bandwidth"],
        link=amount["--link"],
        latency=latency,
        read=amount["--read"],
        written=amount["--written"],
        listing=listing,
        handing=handing,
        start=start,
        losses=losses,
        back=back,
        shards=shards,
    )
    if (sample is None) == (not size):
        raise UsageError("give either --size WIDTHxHEIGHT, once or several times, or --sample REPORT")
    if sample is not None:
        if task or model or weights or seconds_per_megapixel is not None:
            raise UsageError("--sample gives the seconds: leave out the model and --seconds-per-megapixel")
        kinds = clusters.read_sample(sample)
        told = f"{sample.name}"
    else:
        parsed = [parse_share(text) for text in size or []]
        if seconds_per_megapixel is not None:
            if task or model or weights:
                raise UsageError("give a model to be timed here or --seconds-per-megapixel, not both")
            if seconds_per_megapixel <= 0:
                raise UsageError("--seconds-per-megapixel must be more than 0")
            kinds = clusters.stated_kinds(parsed, seconds_per_megapixel)
            told = "as stated"
        else:
            from maximir.restoring.restorer import Restorer

            chosen = model_of(task, model, weights)
            options = Options(device, precision, view=view, stages=stages)
            restorer = Restorer.with_options(chosen.path, options)
            kinds = clusters.timed_kinds(parsed, restorer)
            told = (
                f"{chosen.name}, {restorer.precision_for('uint8')}, timed on this machine ({restorer.device})"
            )
    print_plan(kinds, images, cluster, workers or WORKERS, told, price, price_per_gb, within, seed)


def parse_share(text: str) -> tuple[int, int, float]:
    """Parse height, width and share from "6000x4000=70"."""
    from maximir.sizes import parse_pixels

    pixels, _, share = text.partition("=")
    if share and (not re.fullmatch(r"\d+(\.\d+)?%?", share) or not float(share.rstrip("%"))):
        raise UsageError(f"{text!r}: the share must be a number above 0, such as 6000x4000=70")
    return *parse_pixels(pixels), float(share.rstrip("%") or 1)


def print_plan(
    kinds: list[Kind],
    images: int,
    cluster: Cluster,
    workers: list[int],
    told: str,
    price: float,
    price_per_gb: float,
    within: float | None,
    seed: int,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from maximir import cluster as clusters
    from maximir.progress import in_words

    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    megapixels, seconds = clusters.means(kinds)
    moved = clusters.gigabytes_moved(kinds, images, cluster)

    def cost(outcome: Outcome) -> float:
        return outcome.cost(price, moved, price_per_gb)

    print(
        f"{images:,} photographs of {megapixels:.3g} megapixels, {seconds:.3g} s each ({told}): "
        f"{in_words(images * seconds)} of computing, {moved:,.0f} GB to move"
    )
    heads = ("workers", "time", "worker-hours", "cost", "computing", "done again", "the limit")
    table = Table(*heads, box=None, pad_edge=False)
    outcomes = [clusters.simulate(kinds, images, count, cluster, seed) for count in sorted(set(workers))]
    for outcome in outcomes:
        table.add_row(
            f"{outcome.workers:,}",
            in_words(outcome.seconds),
            f"{outcome.worker_seconds / 3600:,.1f}",
            f"{cost(outcome):,.2f}" if price or price_per_gb else "",
            f"{outcome.busy:.0%}",
            f"{outcome.again:,}",
            outcome.limit,
        )
    console.print(table)
    best = clusters.best(outcomes)
    print(
        f"best: {best.workers:,} workers, {in_words(best.seconds)}: the fastest for at most a tenth more "
        "worker-hours than the least"
    )
    if (wasted := clusters.first_wasteful(outcomes)) is not None:
        print(f"from {wasted.workers:,} workers on, half of the cost is waiting for {wasted.limit}")
    if within is not None:
        enough = clusters.fewest(kinds, images, within * 3600, cluster, seed)
        if enough is None:
            most = f"{clusters.MOST_WORKERS:,}"
            print(f"{most} workers are not enough for {within:g} h: the limit is {outcomes[-1].limit}")
        else:
            print(
                f"within {within:g} h: {enough.workers:,} workers, {in_words(enough.seconds)}"
                + (f", {cost(enough):,.2f}" if price or price_per_gb else "")
            )
