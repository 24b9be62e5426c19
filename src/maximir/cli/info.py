"""`maximir info`: models, variants and resource estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from maximir.cli.options import (
    Device,
    Ensemble,
    MaxMemory,
    Models,
    Precision,
    Scratch,
    Stages,
    Tasks,
    View,
    Weights,
    links_of,
)
from maximir.errors import UsageError
from maximir.restoring.options import Options

if TYPE_CHECKING:
    from maximir.restoring.links import Link


def info(
    size: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Estimate memory and time for images of this size."),
    ] = None,
    task: Tasks = None,
    model: Models = None,
    weights: Weights = None,
    device: Device = Options.device,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
    view: View = Options.view,
    stages: Stages = None,
    ensemble: Ensemble = False,
) -> None:
    """List models and variants; with --size, estimate memory and time for an image on this machine."""
    if size is not None:
        options = Options(device, precision, max_memory, scratch, ensemble, view, stages)
        print_estimate(links_of(task, model, weights), size, options)
    elif task or model or weights or max_memory or scratch or stages or ensemble:
        raise UsageError("give --size WIDTHxHEIGHT to estimate memory and time")
    else:
        list_models()


def list_models() -> None:
    from rich.console import Console
    from rich.table import Table

    from maximir.engine import precision as arithmetic
    from maximir.models import catalogue
    from maximir.network.config import VARIANTS
    from maximir.ops import kernels
    from maximir.restoring.restorer import choose_device

    console = Console(highlight=False)
    console.print("Embedded models (docs/models.md). Reached: PSNR, held-out images")
    models = Table.grid(padding=(0, 2))
    for model in catalogue.MODELS:
        size = f"{model.path.stat().st_size / 1e6:.1f} MB" if model.path.exists() else "missing"
        models.add_row()
        models.add_row(f"[bold]{model.name}", "for", model.description)
        models.add_row("", "trained on", f"{model.trained_on}; {model.training}")
        if model.measured:
            models.add_row("", "reaches", f"{model.measured} dB")
        models.add_row("", "limits", model.limits)
        models.add_row("", "weights", f"{size}, {model.licence}")
    console.print(models)
    console.print()
    variants = Table("variant", "features", "stages", title="Official variants", title_justify="left")
    for name, config in VARIANTS.items():
        variants.add_row(name, str(config.features), str(config.stages))
    console.print(variants)
    console.print(f"native kernels: {kernels.name() or 'none, torch computes everything'}")
    device = choose_device("auto")
    chosen = arithmetic.choose(device)
    auto = "bf16 for 8-bit images, otherwise fp32" if chosen.bf16 else "fp32"
    console.print(f"precision auto, on {device}: {auto} ({chosen.reason})")


def print_estimate(links: Sequence[Link], size: str, options: Options) -> None:
    """Print an estimate of what `maximir restore` takes for an image of this size."""
    from maximir import images, sizes  # images also as in `restore`: part of the process's memory
    from maximir.progress import in_words
    from maximir.restoring import estimate
    from maximir.restoring.links import in_text
    from maximir.restoring.opening import restorer_of

    height, width = sizes.parse_pixels(size)
    if height * width > images.MAX_PIXELS:
        raise UsageError(f"--size {size}: images have at most {images.MAX_PIXELS:,} pixels")
    restorer = restorer_of(links, options)
    needs = estimate.estimate(restorer, height, width)
    precision = restorer.precision_for("uint8")  # as for the estimate
    print(f"{in_text(links)}, {width} x {height} pixels, {precision}, {restorer.device}")
    print(f"memory  {sizes.in_words(needs.peak)}", end="")
    if needs.scratch:
        print(f", and up to {sizes.in_words(needs.scratch)} in scratch files", end="")
    print(f" (at least {sizes.in_words(needs.least)})")
    print(f"time    about {in_words(needs.seconds)}, estimated from {needs.sample} on this machine")
