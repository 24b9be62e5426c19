"""The additions of `maximir open` to the service: the photographs it was given, and an end with the page.

An open page always has a request waiting at /v1/presence, and sends the next one when it is answered.
Browsers slow down the timers of hidden pages, but not this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from maximir.batch.neighbours import LeftAlone, is_in_cloud
from maximir.files import printable, reason, walk
from maximir.service.refusal import Refusal

RENEWED = 15.0  # seconds after which a page asks again
GRACE = 10.0  # seconds without a page that a reload may take
TICK = 0.2  # seconds

log = logging.getLogger("maximir.service")


class Opened(NamedTuple):
    """A file that was given to `maximir open`."""

    path: Path
    folder: str = ""  # its path from a given folder on, with a slash at its end: "holiday/"
    within: bool = False  # lies in a given folder, and may be no photograph


def find_files(paths: Sequence[Path]) -> Iterator[Opened]:
    """Yield the files and those in folders, without hidden ones, sidecars and the like."""
    left_alone = LeftAlone()
    for path in paths:
        if not path.is_dir():
            yield Opened(path)
            continue
        root = path.resolve()
        for here, _, names in walk(root, refuse):
            folder = "/".join((root.name, *here.relative_to(root).parts)) + "/"
            for name in names:
                if left_alone.take(name) or not (here / name).is_file():
                    continue
                if is_in_cloud((here / name).stat()):
                    left_alone.add_in_cloud("a cloud", name)
                else:
                    yield Opened(here / name, folder, True)
    for line in left_alone.lines():
        log.warning("maximir: %s", printable(line))


def as_text(name: str) -> str:
    """Replace bytes of a file name that are no text: JSON cannot carry them."""
    return name.encode("utf-8", "replace").decode()


def refuse(error: OSError) -> None:
    log.warning("%s: cannot be read (%s)", printable(error.filename), reason(error))


class Presence:
    """Knows whether a page is open."""

    def __init__(self, grace: float = GRACE) -> None:
        self.grace, self.pages = grace, 0
        self.left: float | None = None  # when the last page left; None before there was one

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        self.pages += 1
        try:
            yield
        finally:
            self.pages -= 1
            self.left = time.monotonic()

    async def gone(self, busy: Callable[[], bool]) -> None:
        """Return when the last page has been gone for some seconds, and nothing is under way."""
        while self.pages or busy() or self.left is None or time.monotonic() < self.left + self.grace:
            await asyncio.sleep(TICK)


def add_routes(app: FastAPI, opened: Sequence[Opened], presence: Presence) -> None:
    """Add the requests of the page that `maximir open` shows."""

    @app.get("/v1/opened", include_in_schema=False)
    async def list_opened() -> list[dict[str, object]]:
        return [
            {"name": as_text(path.name), "folder": as_text(folder), "within": within}
            for path, folder, within in opened
        ]

    @app.get("/v1/opened/{number}", include_in_schema=False)
    async def send_opened(number: int) -> FileResponse:
        if not 0 <= number < len(opened) or not opened[number].path.is_file():
            raise Refusal(404, "this file is not there any more")
        return FileResponse(opened[number].path, media_type="application/octet-stream")

    @app.get("/v1/presence", include_in_schema=False)
    async def wait(request: Request) -> Response:
        with presence.here(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEWED):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        return Response(status_code=204)
