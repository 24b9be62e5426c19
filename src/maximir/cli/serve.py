"""`maximir serve`: the HTTP service and its page."""

from __future__ import annotations

from typing import Annotated

import typer

from maximir.cli.options import MaxMemory, Precision, Scratch
from maximir.errors import UsageError
from maximir.restoring.options import Options


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; any address except loopback requires a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="MAXIMIR_TOKEN", help="Secret that clients must send; safer in the environment."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Host name under which a proxy publishes it; may be repeated."),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Maximum number of images in the queue.")] = 16,
    max_bytes: Annotated[str, typer.Option(metavar="SIZE", help="Maximum size of an upload.")] = "64MB",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Maximum number of pixels of an image.")
    ] = 50_000_000,
    timeout: Annotated[
        float,
        typer.Option(min=1, help="Maximum seconds for each of decoding, computing and encoding an image."),
    ] = 900,
    drain: Annotated[float, typer.Option(min=0, help="Seconds to finish queued images after SIGTERM.")] = 30,
    webui_api: Annotated[
        bool,
        typer.Option("--webui-api", help="Also speak AUTOMATIC1111's API: tasks as upscalers at scale 1."),
    ] = False,
    device: Annotated[
        list[str] | None,
        typer.Option(help="auto, cpu, cuda, cuda:1, … (default: auto); may be repeated: one process each."),
    ] = None,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
) -> None:
    """Serve restoration over HTTP, with a web page (docs/service.md). Ctrl-C or SIGTERM stops it."""
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
        webui=webui_api,
        drain=drain,
        devices=tuple(device or [Options.device]),
        options=Options(precision=precision, max_memory=max_memory, scratch=scratch),
    )
    try:
        from maximir.service import server
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'maximir[serve]'") from error
    server.serve(settings)
