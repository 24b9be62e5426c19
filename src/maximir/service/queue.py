"""The bounded line of jobs before the worker process, which is started, watched and replaced here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from maximir.errors import MaximirError, UsageError
from maximir.service import process
from maximir.service.metrics import Metrics
from maximir.service.pace import Pace
from maximir.service.process import Worker
from maximir.service.refusal import Refusal
from maximir.service.settings import Settings
from maximir.service.wire import Message

AHEAD = 2  # jobs in the worker that are not computed yet: one is, one is decoded meanwhile
IN_WORKER = 3  # with one that is being encoded
BUSY = ("decoding", "computing", "encoding")  # stages in which an image can bring the worker down
MOST_DEATHS = 3  # of workers around one job, before it is given up
STILLBORN = 3  # workers in a row that ended before they were ready: nobody is kept waiting any more
LONGEST_PAUSE = 10.0  # seconds before the next start
TICK = 0.2  # seconds
REMEMBERED = 60.0  # seconds that the ids of ended jobs are known
MOST_REMEMBERED = 1000
SOON, LATE = 1.0, 300.0  # seconds, bounds of what clients are told to wait
NO_WORKER = "the process that restores images cannot be started; try again later"
STOPPING = "the service is being stopped"

log = logging.getLogger("maximir.service")
numbers = itertools.count(1)


class Result(NamedTuple):
    """A restored image: its file, open, and who has it must close it."""

    file: BinaryIO
    size: int
    kind: str
    seconds: float
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

    task: str
    kind: str | None  # of the result; None: the upload's own
    image: BinaryIO
    size: int  # of the upload, in bytes
    id: str | None = None
    number: int = field(default_factory=numbers.__next__)
    outcome: asyncio.Future[Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    arrived: float = field(default_factory=time.monotonic)
    stage: str = "waiting"
    fraction: float = 0.0  # of computing
    pixels: int | None = None  # once it is decoded
    began: float | None = None  # computing
    deadline: float | None = None  # of this stage
    deaths: int = 0  # of workers that had it
    alone: bool = False  # a suspect: has the worker to itself

    def back_in_line(self) -> None:
        self.stage, self.fraction, self.began, self.deadline = "waiting", 0.0, None, None


class Queue:
    """Takes jobs and gives results. Call `start`, later `drain` and `close`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.taken = 0  # places: uploads, waiting jobs, jobs in the worker
        self.leaving = 0  # results that are being sent
        self.line: deque[Job] = deque()
        self.working: dict[int, Job] = {}  # in the worker, by number, in order
        self.cancels: deque[int] = deque()  # numbers to tell the worker
        self.ids: dict[str, Job] = {}
        self.ended: OrderedDict[str, tuple[str, float]] = OrderedDict()  # id -> state, when
        self.pace = Pace()
        self.changed = asyncio.Event()  # there may be something to send to the worker
        self.draining = False
        self.worker: Worker | None = None
        self.ready = False
        self.heard = 0.0  # when the worker last said something
        self.failures = 0  # workers in a row that ended without a result: for the pause
        self.stillborn = 0  # of these in a row, that never were ready
        self.back_at = 0.0  # when the next one is started
        self.tasks: list[asyncio.Task[None]] = []
        self.first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        metrics.watch(self)

    # What requests ask for.

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, from before the upload until there is a result.

        Raises:
            Refusal: there is none, or no job is taken now.
        """
        if self.draining:
            raise Refusal(503, STOPPING, self.settings.drain)
        if self.stillborn >= STILLBORN:
            raise Refusal(503, NO_WORKER, self.pause())
        if self.taken >= self.settings.queue or self.leaving >= 2 * self.settings.queue:
            raise Refusal(429, "too many images are waiting; try again later", self.retry_after())
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def restore(self, job: Job) -> Result:
        """Have a job done. If this is cancelled, the job is, too.

        Raises:
            Refusal: it cannot be done, or its id is in use.
        """
        if job.id is not None and job.id in self.ids:
            job.image.close()
            raise Refusal(422, "this id belongs to another image that is being restored; choose a new one")
        if job.id is not None:
            self.ids[job.id] = job
        self.line.append(job)
        self.changed.set()
        try:
            return await asyncio.shield(job.outcome)
        except asyncio.CancelledError:
            self.cancel(job)
            raise

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """While a result is being sent."""
        self.leaving += 1
        try:
            yield
        finally:
            self.leaving -= 1

    def progress(self, id: str) -> Progress | None:
        """How far a job is; None: unknown."""
        job = self.ids.get(id)
        if job is None:
            self.forget_old()
            state, _ = self.ended.get(id, ("", 0.0))
            return Progress(state, 0, float(state == "done"), 0.0) if state else None
        order = [*self.working.values(), *self.line]
        ahead = order.index(job)
        left = self.seconds(order[: ahead + 1])
        working = ahead == 0 and job.number in self.working
        return Progress("working" if working else "waiting", ahead, job.fraction, left)

    def health(self) -> str:
        """ "ok", or why no image can be restored now."""
        if self.draining:
            return "draining"
        return "ok" if self.ready else "no worker"

    # Estimates.

    def seconds(self, jobs: list[Job]) -> float | None:
        """Until these are done, the first ones in work; None: anyone's guess."""
        now, total = time.monotonic(), 0.0
        for job in jobs:
            elapsed = 0.0 if job.began is None else now - job.began
            left = self.pace.left(job.pixels, job.size, elapsed, job.fraction)
            if left is None:
                return None
            total += left
        return total

    def retry_after(self) -> float:
        """Seconds after which about half of the places will be free: the worker has work until then."""
        order = [*self.working.values(), *self.line]
        seconds = self.seconds(order[: (len(order) + 1) // 2])
        return min(LATE, max(SOON, seconds if seconds is not None else SOON))

    def pause(self) -> float:
        """Seconds until the next worker may be ready."""
        return max(0.0, self.back_at - time.monotonic()) + SOON

    # Ends of jobs.

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more."""
        if job.outcome.done():
            if not job.outcome.cancelled() and job.outcome.exception() is None:
                job.outcome.result().file.close()
            return
        job.outcome.cancel()
        self.remember(job, "failed")
        self.metrics.jobs.labels(job.task, "cancelled").inc()
        self.withdraw(job)

    def withdraw(self, job: Job) -> None:
        """Take it out of the line, or have the worker stop it."""
        if job.number in self.working:
            self.cancels.append(job.number)
            self.changed.set()
        else:
            with contextlib.suppress(ValueError):
                self.line.remove(job)
            job.image.close()

    def refuse(self, job: Job, refusal: Refusal) -> None:
        if not job.outcome.done():
            job.outcome.set_exception(refusal)
            job.outcome.exception()  # seen: nobody may be waiting
            self.remember(job, "failed")
            self.metrics.jobs.labels(job.task, "failed").inc()

    def fulfil(self, job: Job, result: Result) -> None:
        self.failures = 0
        if job.pixels is not None:
            self.pace.learn(result.seconds, job.pixels, job.size)
            self.metrics.pixels.inc(job.pixels)
        self.metrics.seconds.labels(job.task).observe(result.seconds)
        if job.outcome.done():
            result.file.close()
            return
        job.outcome.set_result(result)
        self.remember(job, "done")
        self.metrics.jobs.labels(job.task, "done").inc()

    def remember(self, job: Job, state: str) -> None:
        if job.id is not None:
            self.ids.pop(job.id, None)
            self.ended.pop(job.id, None)
            self.ended[job.id] = state, time.monotonic()
            self.forget_old()

    def forget_old(self) -> None:
        while self.ended:
            id, (_, when) = next(iter(self.ended.items()))
            if len(self.ended) <= MOST_REMEMBERED and time.monotonic() - when < REMEMBERED:
                return
            del self.ended[id]

    # The worker's life.

    async def start(self) -> str:
        """Start the worker and wait for it: the device that it computes on.

        Raises:
            MaximirError: it cannot be started.
        """
        self.tasks = [asyncio.create_task(self.keep_worker()), asyncio.create_task(self.watch())]
        return await self.first

    async def drain(self) -> None:
        """Take no more jobs and wait for those that there are; in the end, refuse what is left."""
        self.draining = True
        until = time.monotonic() + self.settings.drain
        while (self.taken or self.leaving) and time.monotonic() < until:
            await asyncio.sleep(TICK / 2)
        for job in [*self.working.values(), *self.line]:
            self.refuse(job, Refusal(503, STOPPING, self.settings.drain))

    async def close(self) -> None:
        """End the worker."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def kill(self) -> None:
        """End the worker at once, also in mid-work."""
        if self.worker is not None:
            self.worker.kill()

    async def keep_worker(self) -> None:
        while True:
            try:
                await self.one_worker()
            except OSError as error:
                log.error("no worker process can be started: %s", error)
                if not self.first.done():
                    self.first.set_exception(MaximirError(f"no worker process can be started ({error})"))
            self.failures += 1
            self.stillborn += 1
            pause = min(LONGEST_PAUSE, 2.0 ** (self.failures - 2)) if self.failures > 1 else 0.0
            if self.stillborn >= STILLBORN:
                for job in self.line:
                    job.image.close()
                    self.refuse(job, Refusal(503, NO_WORKER, pause + SOON))
                self.line.clear()
            self.back_at = time.monotonic() + pause
            await asyncio.sleep(pause)

    async def one_worker(self) -> None:
        """From its start to its end."""
        worker = await Worker.start(self.settings.worker or process.COMMAND, self.settings.for_worker())
        self.worker = worker
        self.metrics.starts.inc()
        feeding = asyncio.create_task(self.feed(worker))
        try:
            while (received := await worker.receive()) is not None:
                self.hear(*received)
        except ValueError as error:
            log.error("worker process %d: %s", worker.pid, error)
            worker.kill()
        except BaseException:
            worker.kill()
            raise
        finally:
            self.ready = False
            feeding.cancel()
            status = await worker.wait()
            await asyncio.gather(feeding, return_exceptions=True)
            self.worker = None
        log.warning("worker process %d ended (status %d)", worker.pid, status)
        self.bury()
        if not self.first.done():
            self.first.set_exception(MaximirError(f"the worker process ended at its start (status {status})"))

    async def feed(self, worker: Worker) -> None:
        """Send the worker what it is to do."""
        try:
            while True:
                self.changed.clear()
                while self.cancels:
                    await worker.send({"cancel": self.cancels.popleft()})
                while (job := self.next()) is not None:
                    self.line.popleft()
                    if not self.working:
                        self.heard = time.monotonic()
                    self.working[job.number] = job
                    job.stage = "sent"
                    order = {"job": job.number, "task": job.task, "kind": job.kind}
                    await worker.send(order, job.image, job.size)
                await self.changed.wait()
        except (OSError, EOFError) as error:  # an upload's file: the message is not whole
            log.error("an upload cannot be read again: %s", error)
            worker.kill()

    def next(self) -> Job | None:
        """The next job, if the worker is to have it now."""
        if not self.line or not self.ready or len(self.working) >= IN_WORKER:
            return None
        job = self.line[0]
        if self.working and (job.alone or any(other.alone for other in self.working.values())):
            return None
        not_computed = sum(other.stage != "encoding" for other in self.working.values())
        return job if not_computed < AHEAD else None

    def hear(self, message: Message, file: BinaryIO | str | None) -> None:
        """What the worker says."""
        self.heard = time.monotonic()
        job = self.working.get(message.get("job", 0))
        match message:
            case {"ready": device}:
                self.ready, self.stillborn = True, -1  # the count begins when this one has ended
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
            case {"done": kind, "seconds": seconds, "notes": notes} if job is not None:
                if file is None or isinstance(file, str):
                    self.refuse(job, Refusal(503, f"the result could not be kept ({file})", SOON))
                else:
                    size = file.seek(0, 2)
                    file.seek(0)
                    self.fulfil(job, Result(file, size, kind, seconds, tuple(notes)))
                self.leave(job)
            case {"failed": why, "status": status} if job is not None:
                self.refuse(job, Refusal(status, why, SOON if status == 503 else None))
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

    def bury(self) -> None:
        """The worker has ended: who brought it down is refused, the others go back to the head of the line.

        If several were under way, each is tried again alone, so that an image at which the worker crashes
        takes no other one down, and is tried twice at most.
        """
        jobs = list(self.working.values())
        self.working.clear()
        self.cancels.clear()
        suspects = [job for job in jobs if job.stage in BUSY]
        for job in reversed(jobs):
            job.deaths += 1
            if suspects == [job] or job.deaths >= MOST_DEATHS:
                self.refuse(job, Refusal(503, "the process that restores images ended at this one", SOON))
            if job.outcome.done():
                job.image.close()
            else:
                job.alone = job in suspects
                job.back_in_line()
                self.line.appendleft(job)

    async def watch(self) -> None:
        """Stop jobs that take too long; kill a worker that does not obey, or has become silent."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            late = [job for job in self.working.values() if job.deadline is not None and now > job.deadline]
            for job in late:
                if not job.outcome.done():
                    what = f"{job.stage} it took more than {self.settings.timeout:.0f} s"
                    self.refuse(job, Refusal(504, f"the image was given up: {what}"))
                    self.withdraw(job)
            patience = now - self.settings.grace
            silent = self.working and patience > self.heard + self.settings.timeout
            if silent or any(job.deadline is not None and patience > job.deadline for job in late):
                log.error("the worker process does not answer: it is killed")
                self.kill()
