"""The bounded queue of jobs in front of the worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import psutil

from maximir.restoring import extent
from maximir.service.jobs import Job, Progress, Result
from maximir.service.keeper import TICK, Keeper
from maximir.service.metrics import Metrics, State
from maximir.service.pace import Pace
from maximir.service.refusal import LATE, SOON, Refusal
from maximir.service.settings import Settings

REMEMBERED = 60.0  # seconds for which the ids of ended jobs are known
MOST_REMEMBERED = 1000
MOST_PROMISED = 2  # promises per place
BELATED = 2.0  # seconds after which a promise expires
LONGEST_AHEAD = 5.0  # seconds of work above which a worker takes no further job, if there are other workers
log = logging.getLogger("maximir.service")
NO_WORKER = "no worker process can be started; try again later"
STOPPING = "the service is stopping"


class Queue:
    """Takes jobs and returns results. Call `start`, later `drain` and `close`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.taken = 0  # places: uploads, waiting jobs, jobs in the workers
        self.leaving = 0  # results being sent
        self.line: deque[Job] = deque()
        self.ids: dict[str, Job] = {}
        self.ended: OrderedDict[str, tuple[str, float]] = OrderedDict()  # id -> state, time
        self.pace = Pace()
        self.promised: list[float] = []  # times at which refused clients were asked to return
        self.draining = False  # no new jobs are accepted
        self.closed = False  # uploads that end now are refused, too
        self.keepers = [Keeper(self, device, settings, metrics) for device in settings.devices]
        self.tasks: list[asyncio.Task[None]] = []
        metrics.watch(
            State(
                taken=lambda: self.taken,
                places=lambda: settings.queue,
                leaving=lambda: self.leaving,
                awaited=lambda: len(self.awaited()),
                ready=self.ready,
                memory=self.memory,
            )
        )

    async def start(self) -> str:
        """Start the workers, wait until they are ready, and return their devices.

        Raises:
            MaximirError: a worker cannot be started.
        """
        for keeper in self.keepers:
            self.tasks += [asyncio.create_task(keeper.keep()), asyncio.create_task(keeper.watch())]
        for task in self.tasks:
            task.add_done_callback(complain)
        return ", ".join(await asyncio.gather(*(keeper.first for keeper in self.keepers)))

    async def drain(self) -> None:
        """Accept no more jobs and wait for the present ones; refuse those that do not end in time."""
        self.draining = True
        until = time.monotonic() + self.settings.drain
        while (self.taken or self.leaving) and time.monotonic() < until:
            await asyncio.sleep(TICK / 2)
        self.closed = True
        self.refuse_line(Refusal(503, STOPPING, self.settings.drain))
        for keeper in self.keepers:
            for job in keeper.working.values():
                self.refuse(job, Refusal(503, STOPPING, self.settings.drain))
                keeper.cancel(job)

    async def close(self) -> None:
        """End the workers."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def kill(self) -> None:
        """Kill the workers at once, even while they work."""
        for keeper in self.keepers:
            keeper.kill()

    # Called for requests.

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue, from before the upload until there is a result.

        Raises:
            Refusal: no place is free, or no jobs are accepted now.
        """
        if self.draining:
            raise Refusal(503, STOPPING, self.settings.drain)
        if self.hopeless:
            raise Refusal(503, NO_WORKER, self.pause())
        self.take_place()
        try:
            yield
        finally:
            self.taken -= 1

    def take_place(self) -> None:
        """Reserve a place. Freed places go first to clients whose Retry-After has passed.

        Clients are anonymous, so a promise belongs to the client that comes when it is due. At most half of
        the places are held back, so that the workers never run out of jobs.

        Raises:
            Refusal: no place is free.
        """
        now = time.monotonic()
        self.promised = self.awaited()
        due = min(self.promised, default=math.inf) <= now
        free = self.settings.queue - self.taken
        soon = now + (self.seconds(self.half()) or SOON)
        kept = 0 if due else sum(when <= soon for when in self.promised)
        if free <= min(kept, (self.settings.queue + 1) // 2) or self.leaving >= 2 * self.settings.queue:
            raise Refusal(429, "too many images are waiting; try again later", self.promise(again=due))
        if due:
            self.promised.remove(min(self.promised))
        self.taken += 1

    def awaited(self) -> list[float]:
        """Return the promises that have not expired."""
        return [when for when in self.promised if when > time.monotonic() - BELATED]

    async def restore(self, job: Job) -> Result:
        """Restore a job's image. Cancelling this call cancels the job.

        Raises:
            Refusal: the image cannot be restored, or its id is in use.
        """
        if self.closed:
            job.close()
            raise Refusal(503, STOPPING, self.settings.drain)
        if job.id is not None and job.id in self.ids:
            job.close()
            raise Refusal(422, "this id belongs to another image in the queue; choose a new one")
        if job.id is not None:
            self.ids[job.id] = job
        if (pixels := extent.padded_pixels(job.image)) is not None:  # from the header, until it is decoded
            job.pixels = min(pixels, self.settings.max_pixels) * job.passes
        self.line.append(job)
        self.wake()
        try:
            return await asyncio.shield(job.outcome)
        except asyncio.CancelledError:
            self.cancel(job)
            raise

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Count a result while it is being sent."""
        self.leaving += 1
        try:
            yield
        finally:
            self.leaving -= 1

    def progress(self, id: str) -> Progress | None:
        """Return a job's progress, or None if the id is unknown."""
        job = self.ids.get(id)
        if job is None:
            self.forget_old()
            state, _ = self.ended.get(id, ("", 0.0))
            return Progress(state, 0, float(state == "done"), 0.0) if state else None
        keeper = self.keeper_of(job)
        if keeper is None:
            before = [*self.working(), *earlier(job, self.line)]
            left = self.seconds(before, [job])
        else:
            # A job that is being encoded delays nobody.
            before = [other for other in earlier(job, keeper.working.values()) if other.stage != "encoding"]
            left = self.seconds((), [*before, job])
        working = keeper is not None and not before
        return Progress("working" if working else "waiting", len(before), job.fraction, left)

    def health(self) -> str:
        """Return "ok", or the reason why no image can be restored now."""
        if self.draining:
            return "draining"
        return "ok" if self.ready() else "no worker"

    def ready(self) -> int:
        """Count the workers that are ready."""
        return sum(keeper.ready for keeper in self.keepers)

    def memory(self) -> int:
        """Return the bytes of memory that the workers hold."""
        total = 0
        for keeper in self.keepers:
            with contextlib.suppress(psutil.Error):
                if keeper.worker is not None:
                    total += psutil.Process(keeper.worker.pid).memory_info().rss
        return total

    # Estimates.

    def seconds(self, shared: Iterable[Job], own: Iterable[Job] = ()) -> float | None:
        """Estimate the seconds until jobs are done, shared by all workers or on one; None if unknown."""
        now, total = time.monotonic(), 0.0
        for jobs, workers in ((shared, max(1, self.ready())), (own, 1)):
            for job in jobs:
                elapsed = 0.0 if job.began is None else now - job.began
                left = self.pace.left(job.pixels, job.size, elapsed, job.fraction)
                if left is None:
                    return None
                total += left / workers
        return total

    def half(self) -> list[Job]:
        """Return the jobs that will be done when about half of the places are free."""
        order = [*self.working(), *self.line]
        return order[: (len(order) + 1) // 2]

    def promise(self, again: bool = False) -> float:
        """Return the seconds after which a refused client should return, and remember the promise.

        The first client returns when about half of the places are free: until then the workers have work.
        Each further client returns one image later. Since not all clients return, the number of promises is
        limited. With `again`, a client that returned on time and found no place comes next.
        """
        now, half = time.monotonic(), self.half()
        if again:
            self.promised.remove(min(self.promised))
            half = half[:1]
        seconds = self.seconds(half)
        others = 0 if again else sum(when > now for when in self.promised)
        wait = SOON if seconds is None else seconds * (1 + others / max(1, len(half)))
        wait = math.ceil(min(LATE, max(SOON, wait)))  # Retry-After has whole seconds
        if len(self.promised) < MOST_PROMISED * self.settings.queue:
            self.promised.append(now + wait)
        return wait

    def pause(self) -> float:
        """Return the seconds until the next worker may be ready."""
        return min(keeper.pause() for keeper in self.keepers)

    # Called by the keepers.

    def next(self, keeper: Keeper) -> Job | None:
        """Take the next job from the queue, if it is this keeper's turn."""
        if not self.line or not keeper.has_room(self.line[0]):
            return None
        others = [other for other in self.keepers if other is not keeper and other.ready]
        if any(len(other.working) < len(keeper.working) and other.has_room(self.line[0]) for other in others):
            return None
        # Do not decode a job ahead that another worker could start earlier.
        if others and (self.seconds((), keeper.working.values()) or 0.0) > LONGEST_AHEAD:
            return None
        return self.line.popleft()

    def wake(self) -> None:
        """Tell the keepers that the queue or the turn has changed."""
        for keeper in self.keepers:
            keeper.changed.set()

    def take_back(self, jobs: list[Job]) -> None:
        """Put the jobs of a worker that ended back at the head of the queue."""
        for job in reversed(jobs):
            job.back_in_line()
            self.line.appendleft(job)
        self.wake()

    @property
    def hopeless(self) -> bool:
        """True if no worker can be started."""
        return all(keeper.hopeless for keeper in self.keepers)

    def give_up_if_hopeless(self) -> None:
        """Refuse all waiting jobs if no worker can be started."""
        if self.hopeless:
            self.refuse_line(Refusal(503, NO_WORKER, self.pause()))

    def refuse_line(self, refusal: Refusal) -> None:
        for job in self.line:
            job.close()
            self.refuse(job, refusal)
        self.line.clear()

    def working(self) -> Iterator[Job]:
        """Return the jobs in the workers, approximately in order of arrival there."""
        rows = itertools.zip_longest(*(keeper.working.values() for keeper in self.keepers))
        return (job for row in rows for job in row if job is not None)

    def keeper_of(self, job: Job) -> Keeper | None:
        return next((keeper for keeper in self.keepers if job.number in keeper.working), None)

    # Ends of jobs.

    def cancel(self, job: Job) -> None:
        """Cancel a job whose client has disconnected."""
        if job.outcome.done():
            if not job.outcome.cancelled() and job.outcome.exception() is None:
                job.outcome.result().file.close()
            return
        job.outcome.cancel()
        self.remember(job, "failed")
        self.metrics.jobs.labels(job.task or "other", "cancelled").inc()
        if (keeper := self.keeper_of(job)) is not None:
            keeper.cancel(job)
            return
        with contextlib.suppress(ValueError):
            self.line.remove(job)
        job.close()
        self.wake()  # the job may have needed a worker to itself

    def refuse(self, job: Job, refusal: Refusal) -> None:
        if not job.outcome.done():
            job.outcome.set_exception(refusal)
            job.outcome.exception()  # marks it as retrieved: nobody may be waiting
            self.remember(job, "failed")
            self.metrics.jobs.labels(job.task or "other", "failed").inc()

    def fulfil(self, job: Job, result: Result) -> None:
        if job.pixels:
            self.pace.learn(result.seconds, job.pixels, job.size)
            self.metrics.pixels.inc(job.pixels)
        self.metrics.seconds.labels(job.task or "other").observe(result.seconds)
        if job.outcome.done():
            result.file.close()
            return
        job.outcome.set_result(result)
        self.remember(job, "done")
        self.metrics.jobs.labels(job.task or "other", "done").inc()

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


def earlier(job: Job, jobs: Iterable[Job]) -> Iterator[Job]:
    return itertools.takewhile(lambda other: other is not job, jobs)


def complain(task: asyncio.Task[None]) -> None:
    """Log the failure of a keeper's task; these only end when the service does."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task that keeps a worker has failed", exc_info=error)
