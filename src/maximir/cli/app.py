"""The `maximir` command: a thin layer over the library. Heavy imports happen inside the commands."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Annotated

import typer

from maximir import __version__
from maximir.cli.compare import compare
from maximir.cli.convert import convert
from maximir.cli.degrade import degrade
from maximir.cli.evaluate import evaluate
from maximir.cli.export import export
from maximir.cli.info import info
from maximir.cli.models import get, models
from maximir.cli.open import open_page
from maximir.cli.plan_cluster import plan_cluster
from maximir.cli.restore import restore
from maximir.cli.serve import serve
from maximir.cli.train import train
from maximir.cli.watch import watch
from maximir.errors import MaximirError, UsageError
from maximir.files import printable, reason

app = typer.Typer(
    name="maximir",
    help="Restore photographs with MAXIM: denoise, deblur, derain, dehaze, enhance, retouch, dejpeg.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    restore,
    watch,
    models,
    get,
    evaluate,
    compare,
    convert,
    export,
    train,
    degrade,
    serve,
    info,
    plan_cluster,
):
    app.command()(command)
app.command("open")(open_page)


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


def like_an_option(arguments: list[str]) -> str | None:
    """Return the first argument, except "-", that names a file but is parsed as an option."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return next((name for name in before if re.match("-.", name) and os.path.lexists(name)), None)


def main() -> None:
    """Run the command. Errors print one sentence on standard error and set the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may not fit the terminal's encoding
    # OpenMP's threads spin long while they wait, which is slow beside any other program: an image took 10 s
    # instead of 2 s on two processors. Short spinning costs little. Must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app()
    except SystemExit as end:
        if end.code == 2 and (name := like_an_option(sys.argv[1:])):
            print(
                f"maximir: {printable(name)} is a file, but starts like an option: write ./{printable(name)}",
                file=sys.stderr,
            )
        raise
    except MaximirError as error:
        print(f"maximir: {printable(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:  # has no name if standard output is full or closed
        place = f"{error.filename}: " if error.filename else ""
        print(f"maximir: {printable(f'{place}{reason(error)}')}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("maximir: interrupted", file=sys.stderr)
        sys.exit(130)
