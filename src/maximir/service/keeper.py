"""One worker process: started, fed from the queue, watched and replaced."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from typing import BinaryIO, Protocol

from maximir.errors import MaximirError, UsageError
from maximir.service import process
from maximir.service.jobs import Job, Result
from maximir.service.metrics import Metrics
from maximir.service.process import Worker
from maximir.service.refusal import SOON, Refusal
from maximir.service.settings import Settings
from maximir.service.wire import Message

AHEAD = 2  # jobs in the worker that are not computed yet: one is, one is decoded meanwhile
IN_WORKER = 3  # with one that is being encoded
BUSY = ("decoding", "computing", "encoding")  # stages in which an image can bring the worker down
MOST_DEATHS = 3  # of workers around one job, before it is given up
STILLBORN = 3  # workers in a row that ended before they were ready: nobody is kept waiting any more
LONGEST_PAUSE = 10.0  # seconds before the next start
TICK = 0.2  # seconds

log = logging.getLogger("maximir.service")


class Line(Protocol):
    """Where a keeper gets jobs, and whom it tells what becomes of them; see `Queue`."""

    def next(self, keeper: Keeper) -> Job | None: ...
    def wake(self) -> None: ...
    def take_back(self, jobs: list[Job]) -> None: ...
    def give_up_if_hopeless(self) -> None: ...
    def refuse(self, job: Job, refusal: Refusal) -> None: ...
    def fulfil(self, job: Job, result: Result) -> None: ...


class Keeper:
    """Sees to it that there is a worker process for a device, and that it has work."""

    def __init__(self, line: Line, device: str, settings: Settings, metrics: Metrics) -> None:
        self.line, self.device, self.settings, self.metrics = line, device, settings, metrics
        self.working: dict[int, Job] = {}  # in the worker, by number, in order
        self.cancels: deque[int] = deque()  # numbers to tell the worker
        self.changed = asyncio.Event()  # there may be something to send to the worker
        self.worker: Worker | None = None
        self.ready = False
        self.ready_by = math.inf  # while one starts: when it must be ready
        self.heard = 0.0  # when the worker last said something
        self.failures = 0  # workers in a row that ended without a result: for the pause
        self.stillborn = 0  # of these in a row, that never were ready
        self.back_at = 0.0  # when the next one is started
        self.first: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # the device that it has

    @property
    def hopeless(self) -> bool:
        """Whether nothing is to be expected of this device any more."""
        return self.stillborn >= STILLBORN

    def pause(self) -> float:
        """Seconds until the next worker may be ready."""
        return max(0.0, self.back_at - time.monotonic()) + SOON

    # The worker's life.

    async def keep(self) -> None:
        while True:
            try:
                await self.one_worker()
            except OSError as error:
                log.error("no worker process can be started: %s", error)
                if not self.first.done():
                    self.first.set_exception(MaximirError(f"no worker process can be started ({error})"))
            self.failures += 1
            self.stillborn += 1
            pause = pause_after(self.failures)
            self.back_at = time.monotonic() + pause
            self.line.give_up_if_hopeless()
            await asyncio.sleep(pause)

    async def one_worker(self) -> None:
        """From its start to its end."""
        command = self.settings.worker or process.COMMAND
        worker = await Worker.start(command, self.settings.for_worker(self.device))
        self.worker, self.ready_by = worker, time.monotonic() + self.settings.timeout
        self.metrics.starts.inc()
        feeding = asyncio.create_task(self.feed(worker))
        try:
            while (received := await worker.receive()) is not None:
                self.hear(*received)
        except (ValueError, OSError) as error:  # only its start may raise OSError: there is someone to bury
            log.error("worker process %d: %s", worker.pid, error)
            worker.kill()
        except BaseException:  # the service ends, or has a fault: no worker may outlive it
            worker.kill()
            raise
        finally:
            self.ready, self.ready_by = False, math.inf
            feeding.cancel()
            status = await worker.wait()
            await asyncio.gather(feeding, return_exceptions=True)
            self.worker = None
        log.warning("worker process %d ended (status %d)", worker.pid, status)
        self.bury()
        if not self.first.done():
            self.first.set_exception(MaximirError(f"the worker process ended at its start (status {status})"))

    def bury(self) -> None:
        """The worker has ended: who brought it down is refused, the others go back to the head of the line.

        If several were under way, each is tried again alone, so that an image at which the worker crashes
        takes no other one down, and is tried twice at most.
        """
        jobs = list(self.working.values())
        self.working.clear()
        self.cancels.clear()
        suspects = [job for job in jobs if job.stage in BUSY]
        back = []
        for job in jobs:
            job.deaths += 1
            if suspects == [job] or job.deaths >= MOST_DEATHS:
                why = "the process that restores images ended at this one"
                self.line.refuse(job, Refusal(503, why, SOON))
            if job.outcome.done():
                job.image.close()
            else:
                job.alone = job in suspects
                back.append(job)
        self.line.take_back(back)

    async def watch(self) -> None:
        """Stop jobs that take too long; kill one that does not obey, is silent, or does not get ready."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            late = [job for job in self.working.values() if job.deadline is not None and now > job.deadline]
            for job in late:
                if not job.outcome.done():
                    what = f"{job.stage} it took more than {self.settings.timeout:.0f} s"
                    self.line.refuse(job, Refusal(504, f"the image was given up: {what}"))
                    self.cancel(job)
            patience = now - self.settings.grace
            silent = bool(self.working) and patience > self.heard + self.settings.timeout
            silent |= patience > self.ready_by
            if silent or any(job.deadline is not None and patience > job.deadline for job in late):
                log.error("the worker process does not answer: it is killed")
                self.kill()

    def kill(self) -> None:
        """End the worker at once, also in mid-work."""
        if self.worker is not None:
            self.worker.kill()

    # What it is told.

    async def feed(self, worker: Worker) -> None:
        """Send the worker what it is to do."""
        try:
            while True:
                self.changed.clear()
                while self.cancels:
                    await worker.send({"cancel": self.cancels.popleft()})
                while (job := self.line.next(self)) is not None:
                    if not self.working:
                        self.heard = time.monotonic()
                    self.working[job.number] = job
                    job.stage = "sent"
                    self.line.wake()  # it may be another worker's turn now
                    order = {"job": job.number, "model": job.model, "kind": job.kind, "view": job.view}
                    await worker.send(order, job.image, job.size)
                await self.changed.wait()
        except (OSError, EOFError) as error:  # an upload's file: the message is not whole
            log.error("an upload cannot be read again: %s", error)
            worker.kill()

    def has_room(self, job: Job) -> bool:
        """Whether the worker is to have this job now, as far as it is concerned."""
        if not self.ready or len(self.working) >= IN_WORKER:
            return False
        if self.working and (job.alone or any(other.alone for other in self.working.values())):
            return False
        return sum(other.stage != "encoding" for other in self.working.values()) < AHEAD

    def cancel(self, job: Job) -> None:
        """Have the worker stop a job that it has."""
        self.cancels.append(job.number)
        self.changed.set()

    # What it says.

    def hear(self, message: Message, file: BinaryIO | str | None) -> None:
        self.heard = time.monotonic()
        job = self.working.get(message.get("job", 0))
        match message:
            case {"ready": device}:
                self.ready, self.ready_by = True, math.inf
                self.stillborn = -1  # the count begins when this one has ended
                log.info("worker process %d is ready, on %s", self.worker.pid if self.worker else 0, device)
                if not self.first.done():
                    self.first.set_result(device)
            case {"failed": why, "usage": usage}:
                log.error("the worker process cannot start: %s", why)
                if not self.first.done():
                    self.first.set_exception(UsageError(why) if usage else MaximirError(why))
            case {"stage": stage} if job is not None:
                self.enter(job, stage, message.get("pixels"))
            case {"fraction": fraction} if job is not None:
                job.fraction = fraction
            case {"done": kind, "seconds": took, "precision": precision, "notes": notes} if job is not None:
                self.failures = 0
                if file is None or isinstance(file, str):
                    self.line.refuse(job, Refusal(503, f"the result could not be kept ({file})", SOON))
                else:
                    size = file.seek(0, 2)
                    file.seek(0)
                    self.line.fulfil(job, Result(file, size, kind, took, precision, tuple(notes)))
                self.leave(job)
            case {"failed": why, "status": status} if job is not None:
                self.line.refuse(job, Refusal(status, why, SOON if status == 503 else None))
                self.leave(job)
            case {"cancelled": True} if job is not None:
                self.leave(job)
        self.changed.set()

    def enter(self, job: Job, stage: str, pixels: int | None) -> None:
        job.stage = stage
        job.deadline = self.heard + self.settings.timeout if stage in BUSY else None
        job.pixels = pixels or job.pixels
        if stage == "computing":
            job.began = self.heard
            self.metrics.waited.observe(self.heard - job.arrived)
        elif stage == "encoding":
            job.fraction = 1.0

    def leave(self, job: Job) -> None:
        """It is not in the worker any more."""
        del self.working[job.number]
        job.image.close()


def pause_after(failures: int) -> float:
    """Seconds before the next start, after so many workers in a row that ended without a result."""
    return min(LONGEST_PAUSE, 2.0 ** min(failures - 2, 10)) if failures > 1 else 0.0
