"""`maximir open`: the page in a browser, for as long as it is open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maximir.cli.options import Device, MaxMemory, Precision, Scratch
from maximir.errors import UsageError
from maximir.restoring.options import Options

# Only this machine's user sends photographs, so the limits are wide.
MOST_BYTES = 1_000_000_000
MOST_PIXELS = 500_000_000
LONGEST = 7200  # seconds for each of decoding, computing and encoding


def open_page(
    photographs: Annotated[
        list[Path] | None, typer.Argument(metavar="[PHOTOGRAPH…]", help="Photographs and folders to open.")
    ] = None,
    device: Device = Options.device,
    precision: Precision = Options.precision,
    max_memory: MaxMemory = None,
    scratch: Scratch = None,
) -> None:
    """Open the page in a browser. It ends when the page has been closed for some seconds, or on Ctrl-C."""
    from maximir.service.settings import Settings

    given = photographs or []
    for path in given:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder")
    try:
        from maximir.service import server
        from maximir.service.companion import find_files
    except ModuleNotFoundError as error:
        raise UsageError(f"the page needs {error.name}: pip install 'maximir[serve]'") from error
    server.serve(
        Settings(
            port=server.PREFERRED,
            max_bytes=MOST_BYTES,
            max_pixels=MOST_PIXELS,
            timeout=LONGEST,
            devices=(device,),
            options=Options(precision=precision, max_memory=max_memory, scratch=scratch),
            opened=tuple(find_files(given)),
        )
    )
