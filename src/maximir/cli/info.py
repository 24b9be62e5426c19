"""`maximir info`: what there is, and what an image will take."""

from __future__ import annotations

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
    model_of,
)
from maximir.errors import UsageError
from maximir.restoring.options import Options

if TYPE_CHECKING:
    from maximir.models.cards import ModelCard


def info(
    size: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Foresee memory and time for images of this size."),
    ] = None,
    task: Task = None,
    model: Model = None,
    weights: Weights = None,
    device: Device = Options.device,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
    view: View = Options.view,
    stages: Stages = None,
    ensemble: Ensemble = False,
) -> None:
    """List models and variants; with --size, foresee what an image takes on this machine."""
    if size is not None:
        options = Options(device, precision, max_memory, scratch, ensemble, view, stages)
        foresee(model_of(task, model, weights), size, options)
    elif task or model or weights or max_memory or scratch or stages or ensemble:
        raise UsageError("give --size WIDTHxHEIGHT to foresee what an image takes")
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
    console.print("Embedded models (cards: src/maximir/models/box). Reached: PSNR, held-out images")
    models = Table.grid(padding=(0, 2))
    for model in catalogue.MODELS:
        size = f"{model.path.stat().st_size / 1e6:.1f} MB" if model.path.exists() else "missing"
        models.add_row()
        models.add_row(f"[bold]{model.name}", "for", model.description)
        models.add_row("", "trained on", f"{model.trained_on}; {model.training}")
        models.add_row("", "reaches", f"{model.measured} dB")
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
    device = choose_device("auto")
    auto = "bf16 for pictures of 8 bits, else fp32" if arithmetic.bf16_is_faster(device) else "fp32"
    console.print(f"precision auto, on {device}: {auto}")


def foresee(chosen: ModelCard, size: str, options: Options) -> None:
    """Print what `maximir restore` will take for an image of this size."""
    from maximir import (
        images,  # noqa: F401  as `restore` does: part of what the process holds
        sizes,
    )
    from maximir.progress import in_words
    from maximir.restoring import foresight
    from maximir.restoring.restorer import Restorer

    height, width = sizes.parse_pixels(size)
    restorer = Restorer.with_options(chosen.path, options)
    foreseen = foresight.foresee(restorer, height, width)
    precision = restorer.precision_for("uint8")  # as the foreseen image
    print(f"{chosen.name}, {width} x {height} pixels, {precision}, {restorer.device}")
    print(f"memory  {sizes.in_words(foreseen.peak)}", end="")
    if foreseen.scratch:
        print(f", and up to {sizes.in_words(foreseen.scratch)} in scratch files", end="")
    print(f" (at least {sizes.in_words(foreseen.least)})")
    print(f"time    about {in_words(foreseen.seconds)}, reckoned from {foreseen.sample} on this machine")
