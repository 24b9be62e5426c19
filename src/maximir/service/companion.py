"""The additions of `maximir open` to the service: the photographs it was given, and an end with the page.

An open page always has a request waiting at /v1/presence, and sends the next one when it is answered.
Browsers slow down the timers of hidden pages, but not this.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from maximir.service.refusal import Refusal

RENEWED = 15.0  # seconds after which a page asks again
GRACE = 10.0  # seconds without a page that a reload may take
TICK = 0.2  # seconds


class Opened(NamedTuple):
    """A file that was given to `maximir open`."""

    path: Path
    folder: str = ""  # its path from a given folder on, with a slash at its end: "holiday/"
    within: bool = False  # lies in a given folder, and may be no photograph


def find_files(paths: Sequence[Path]) -> Iterator[Opened]:
    """Yield the files and those in folders, in order of their names; hidden ones are left out."""
    for path in paths:
        if not path.is_dir():
            yield Opened(path)
            continue
        root = path.resolve()
        for found in sorted(root.rglob("*")):
            parts = found.relative_to(root).parts
            if found.is_file() and not any(part.startswith(".") for part in parts):
                yield Opened(found, "/".join((root.name, *parts[:-1])) + "/", True)


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
        return [{"name": path.name, "folder": folder, "within": within} for path, folder, within in opened]

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
