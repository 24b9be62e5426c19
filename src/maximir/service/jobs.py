"""An upload on its way through the service, and its result."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

numbers = itertools.count(1)


class Result(NamedTuple):
    """A restored image. Its owner closes the open file."""

    file: BinaryIO
    size: int
    kind: str
    seconds: float
    precision: str
    notes: tuple[str, ...]


class Progress(NamedTuple):
    """A job's progress, as the API reports it."""

    state: str
    ahead: int
    fraction: float
    seconds_left: float | None


@dataclass(eq=False)
class Job:
    """An upload to be restored. From `Queue.restore` on, the queue owns the job and its file."""

    task: str  # "" if the model's file does not say
    model: str  # name
    kind: str | None  # of the result; None: the upload's own
    image: BinaryIO
    size: int  # bytes of the upload
    id: str | None = None
    view: str = "auto"  # of `Restorer`
    number: int = field(default_factory=numbers.__next__)
    outcome: asyncio.Future[Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    arrived: float = field(default_factory=time.monotonic)
    stage: str = "waiting"
    fraction: float = 0.0  # of the computation
    pixels: int | None = None  # from the header, later as decoded
    began: float | None = None  # start of the computation
    deadline: float | None = None  # of the current stage
    deaths: int = 0  # workers that died while they held this job
    alone: bool = False  # suspected of crashing workers: runs without other jobs

    def back_in_line(self) -> None:
        self.stage, self.fraction, self.began, self.deadline = "waiting", 0.0, None, None
