"""`maximir train`: train a model by a recipe."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from maximir.cli.options import Device, check_outside
from maximir.errors import UsageError
from maximir.storage import is_address


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run. An unfinished run there continues.")] = Path(
        "run"
    ),
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Clean photographs: folder or .tar shard, local or at an address (s3://…); may be repeated."
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            help="Pairs: a folder with input/ and target/, a .tar shard or a .txt list; may be repeated."
        ),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Clean images for validation during training; may be repeated.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from these weights: .safetensors, official .npz, or a model's name."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Also learn from this model's outputs for the samples: a file, or a model's name."),
    ] = None,
    stages: Annotated[
        int | None,
        typer.Option(min=1, max=3, help="Stages of the network; of a larger --init, the first ones."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the recipe (value in TOML)."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Do not train: estimate memory, speed and hours on this machine.")
    ] = False,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare samples.")] = 0,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Split each batch into N parts, computed in turn.")
    ] = 1,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Recompute activations for the gradients, to save memory.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    shard: Annotated[bool, typer.Option("--shard", help="Under torchrun: FSDP2 instead of DDP.")] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between saved states.")] = 250,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between log lines.")] = 50,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
) -> None:
    """Train a model by a recipe (docs/training.md). With several processes: torchrun … -m maximir train …"""
    from maximir.training.data import place_of
    from maximir.training.recipe import load_recipe
    from maximir.training.run import Execution, saved_states

    changes: dict[str, Any] = {}
    for key, value in map(parse_override, override or []):
        old = changes.get(key)
        changes[key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    if init is not None:
        changes["init"] = init
    if teacher is not None:
        changes["teacher"] = teacher
    if stages is not None:
        model = changes.get("model", {})
        changes["model"] = model | {"stages": stages} if isinstance(model, dict) else model
    chosen = load_recipe(recipe, changes)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; choose a folder")
    given = (*(data or ()), *(pairs or ()), *(validation or ()))
    check_outside(out, (Path(text) for text in given if not is_address(text)))
    clean, paired, validating = (
        [place_of(text) for text in given or []] for given in (data, pairs, validation)
    )
    execution = Execution(device, workers, accumulate, recompute, compile, shard)
    if plan:
        from maximir.training.plan import print_plan

        print_plan(chosen, clean, paired, execution)
        return

    from maximir.training.train import Every
    from maximir.training.train import train as run

    # FSDP2 warns about in-place changes of the outputs; there are none here.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    try:
        run(
            chosen,
            clean,
            out,
            pairs=paired,
            validation=validating,
            execution=execution,
            every=Every(log_every, validate_every, save_every),
        )
    except KeyboardInterrupt:  # typer would end silently
        begins = "begins again: no state was saved yet"
        if states := saved_states(out):
            begins = f"continues after step {int(states[-1].stem.removeprefix('step-'))}"
        print(f"maximir: interrupted; the same command {begins}", file=sys.stderr)
        raise typer.Exit(130) from None


def parse_override(item: str) -> tuple[str, Any]:
    """Return key and value of KEY=VALUE in TOML, where a word needs no quotes."""
    import tomllib

    quoted = re.sub(r"=\s*([A-Za-z][\w.-]*)\s*$", r'="\1"', item)
    for text in (item, quoted):
        with contextlib.suppress(tomllib.TOMLDecodeError, ValueError):
            ((key, value),) = tomllib.loads(text).items()
            return key, value
    raise UsageError(f"--set {item}: must be KEY=VALUE with a TOML value, e.g. steps=100")
