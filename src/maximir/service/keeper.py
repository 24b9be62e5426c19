"""A keeper starts one worker process, feeds it from the queue, watches it and replaces it."""

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

AHEAD = 2  # jobs in the worker that are not yet encoded: one is computed while the next is decoded
IN_WORKER = 3  # the same, with one more being encoded
BUSY = ("decoding", "computing", "encoding")  # stages in which an image can crash the worker
MOST_DEATHS = 3  # worker deaths after which a job is refused
STILLBORN = 3  # workers in a row that ended before they were ready, after which waiting jobs are refused
LONGEST_PAUSE = 10.0  # seconds before the next start
TICK = 0.2  # seconds

log = logging.getLogger("maximir.service")


class Line(Protocol):
    """The queue as a keeper uses it; see `Queue`."""

    def next(self, keeper: Keeper) -> Job | None: ...
    def wake(self) -> None: ...
    def take_back(self, jobs: list[Job]) -> None: ...
    def give_up_if_hopeless(self) -> None: ...
    def refuse(self, job: Job, refusal: Refusal) -> None: ...
    def fulfil(self, job: Job, result: Result) -> None: ...


class Keeper:
    """Keeps one worker process running on a device and supplies it with jobs."""

    def __init__(self, line: Line, device: str, settings: Settings, metrics: Metrics) -> None:
        self.line, self.device, self.settings, self.metrics = line, device, settings, metrics
        self.working: dict[int, Job] = {}  # jobs in the worker by number, in order
        self.cancels: deque[int] = deque()  # numbers to send to the worker
        self.changed = asyncio.Event()  # there may be something to send to the worker
        self.worker: Worker | None = None
        self.ready = False
        self.ready_by = math.inf  # deadline of a starting worker
        self.heard = 0.0  # time of the worker's last message
        self.failures = 0  # workers in a row that ended without a result; sets the pause
        self.stillborn = 0  # workers in a row that ended before they were ready
        self.back_at = 0.0  # start time of the next worker
        self.first: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # device of the first

    @property
    def hopeless(self) -> bool:
        """True after several workers in a row ended before they were ready."""
        return self.stillborn >= STILLBORN

    def pause(self) -> float:
        """Return the seconds until the next worker may be ready."""
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
        """Run one worker from its start to its end."""
        command = self.settings.worker or process.COMMAND
        worker = await Worker.start(command, self.settings.for_worker(self.device))
        self.worker = worker
        self.ready_by = time.monotonic() + max(self.settings.timeout, self.settings.start)
        self.metrics.starts.inc()
        feeding = asyncio.create_task(self.feed(worker))
        try:
            while (received := await worker.receive()) is not None:
                self.hear(*received)
        except (ValueError, OSError) as error:  # the worker has started: end it and clean up below
            log.error("worker process %d: %s", worker.pid, error)
            worker.kill()
        except BaseException:  # the service stops or fails: no worker may outlive it
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
            self.first.set_exception(MaximirError(f"the worker process ended during start (status {status})"))

    def bury(self) -> None:
        """Refuse the job that crashed the worker; return the others to the queue.

        If several jobs were being processed, each is retried alone. So an image that crashes the worker takes
        no other image down, and is tried twice at most.
        """
        jobs = list(self.working.values())
        self.working.clear()
        self.cancels.clear()
        suspects = [job for job in jobs if job.stage in BUSY]
        back = []
        for job in jobs:
            job.deaths += 1
            if suspects == [job] or job.deaths >= MOST_DEATHS:
                why = "the worker process crashed on this image"
                self.line.refuse(job, Refusal(503, why, SOON))
            if job.outcome.done():
                job.close()
            else:
                job.alone = job in suspects
                back.append(job)
        self.line.take_back(back)

    async def watch(self) -> None:
        """Cancel jobs that exceed the timeout; kill a worker that ignores this, hangs or fails to start."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            late = [job for job in self.working.values() if job.deadline is not None and now > job.deadline]
            for job in late:
                if not job.outcome.done():
                    what = f"{job.stage} took more than {self.settings.timeout:.0f} s"
                    self.line.refuse(job, Refusal(504, f"the image was cancelled: {what}"))
                    self.cancel(job)
            patience = now - self.settings.grace
            silent = bool(self.working) and patience > self.heard + self.settings.timeout
            silent |= patience > self.ready_by
            if silent or any(job.deadline is not None and patience > job.deadline for job in late):
                log.error("the worker process does not respond: killing it")
                self.kill()

    def kill(self) -> None:
        """Kill the worker at once, even while it works."""
        if self.worker is not None:
            self.worker.kill()

    # Messages to the worker.

    async def feed(self, worker: Worker) -> None:
        """Send jobs and cancellations to the worker."""
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
                    self.line.wake()  # now another worker may be next
                    order = {"job": job.number, "model": job.model, "kind": job.kind, "view": job.view}
                    order |= {"strength": job.strength, "detail": job.detail}
                    order["others"] = {name: upload.size for name, upload in job.others.items()}
                    others = [(upload.file, upload.size) for upload in job.others.values()]
                    await worker.send(order, (job.image, job.size), *others)
                await self.changed.wait()
        except (OSError, EOFError) as error:  # of the upload's file: the message is incomplete
            log.error("cannot read an upload again: %s", error)
            worker.kill()

    def has_room(self, job: Job) -> bool:
        """Return True if this worker can take the job now."""
        if not self.ready or len(self.working) >= IN_WORKER:
            return False
        if self.working and (job.alone or any(other.alone for other in self.working.values())):
            return False
        return sum(other.stage != "encoding" for other in self.working.values()) < AHEAD

    def cancel(self, job: Job) -> None:
        """Tell the worker to stop a job."""
        self.cancels.append(job.number)
        self.changed.set()

    # Messages from the worker.

    def hear(self, message: Message, file: BinaryIO | str | None) -> None:
        self.heard = time.monotonic()
        job = self.working.get(message.get("job", 0))
        match message:
            case {"ready": device}:
                self.ready, self.ready_by = True, math.inf
                self.stillborn = -1  # `keep` adds 1 when this worker ends
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
                    self.line.refuse(job, Refusal(503, f"the result could not be stored ({file})", SOON))
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
        job.pixels = job.pixels if pixels is None else pixels * job.passes
        if stage == "computing":
            job.began = self.heard
            self.metrics.waited.observe(self.heard - job.arrived)
        elif stage == "encoding":
            job.fraction = 1.0

    def leave(self, job: Job) -> None:
        """Remove a job that the worker has finished with."""
        del self.working[job.number]
        job.close()


def pause_after(failures: int) -> float:
    """Return the pause in seconds after this many workers in a row that ended without a result."""
    return min(LONGEST_PAUSE, 2.0 ** min(failures - 2, 10)) if failures > 1 else 0.0
