"""`maximir serve`: the HTTP service and its page."""

from __future__ import annotations

from typing import Annotated

import typer

from maximir.cli.options import MaxMemory, Precision, Scratch
from maximir.errors import UsageError
from maximir.restoring.options import Options


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
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds that images in the queue get to end after SIGTERM.")
    ] = 30,
    device: Annotated[
        list[str] | None,
        typer.Option(help="auto, cpu, cuda, cuda:1, … (default: auto); may be repeated: a process for each."),
    ] = None,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
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
        drain=drain,
        devices=tuple(device or [Options.device]),
        options=Options(precision=precision, max_memory=max_memory, scratch=scratch),
    )
    try:
        from maximir.service import server
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'maximir[serve]'") from error
    server.serve(settings)
