"""An upload on its way through the service, and what becomes of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

numbers = itertools.count(1)


class Result(NamedTuple):
    """A restored image: its file, open, and who has it must close it."""

    file: BinaryIO
    size: int
    kind: str
    seconds: float
    precision: str
    notes: tuple[str, ...]


class Progress(NamedTuple):
    """What a client hears about its job: see the API."""

    state: str
    ahead: int
    fraction: float
    seconds_left: float | None


@dataclass(eq=False)
class Job:
    """An upload to be restored. It belongs to the queue from `Queue.restore` on, and so does its file."""

    task: str  # "" for a model whose file does not say
    model: str  # its name
    kind: str | None  # of the result; None: the upload's own
    image: BinaryIO
    size: int  # of the upload, in bytes
    id: str | None = None
    view: str = "auto"  # of `Restorer`
    number: int = field(default_factory=numbers.__next__)
    outcome: asyncio.Future[Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    arrived: float = field(default_factory=time.monotonic)
    stage: str = "waiting"
    fraction: float = 0.0  # of computing
    pixels: int | None = None  # by the header, then as decoded
    began: float | None = None  # computing
    deadline: float | None = None  # of this stage
    deaths: int = 0  # of workers that had it
    alone: bool = False  # a suspect: has a worker to itself

    def back_in_line(self) -> None:
        self.stage, self.fraction, self.began, self.deadline = "waiting", 0.0, None, None
