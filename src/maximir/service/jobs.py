"""An upload on its way through the service, and its result."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from maximir.service.form import Upload

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

    task: str  # "" if the model's file does not say; "chain" of several
    model: str  # name, or a chain: "denoise-box:0.8,enhance-box"
    kind: str | None  # of the result; None: the upload's own
    image: BinaryIO
    size: int  # bytes of the upload
    id: str | None = None
    view: str = "auto"  # of `Restorer`
    tasks: str = ""  # "denoise-enhance"
    strength: float = 1.0
    detail: float = 0.0
    others: dict[str, Upload] = field(default_factory=dict)  # mask, and an earlier result to be blended
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

    @property
    def passes(self) -> int:
        """Passes through a network."""
        return 0 if "restored" in self.others else self.model.count(",") + 1

    def close(self) -> None:
        """Close the uploads."""
        self.image.close()
        for upload in self.others.values():
            upload.file.close()

    def back_in_line(self) -> None:
        self.stage, self.fraction, self.began, self.deadline = "waiting", 0.0, None, None
