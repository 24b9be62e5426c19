"""Estimate the time and cost of restoring millions of photographs on a cluster: `maximir plan-cluster`.

A discrete-event simulation. Each worker has the three stages of `pipeline`: it reads, computes and writes
one photograph at a time, with queues in between. Workers share a store of limited bandwidth in each direction
and, unless each has its own shard (`--shard i/n`), a driver that assigns the work. Workers start late and are
lost at random; the work of a lost worker is repeated.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from maximir.batch.pipeline import WAITING_BYTES, WAITING_PHOTOS
from maximir.errors import UsageError
from maximir.files import reason

if TYPE_CHECKING:
    from maximir.restoring.restorer import Restorer

PORTIONS = 20_000  # minimum number of simulated portions
PORTIONS_EACH = 200  # minimum per worker: the last one is 0.5% of its work
MOST_LOST = 1000, 20  # in a row, and for each worker, before a portion is finished
MOST_WORKERS = 2000
CHEAP = 1.1  # times the least worker-hours
KINDS = 100  # size classes of a sample
MEGA, HOUR = 1e6, 3600.0


@dataclass(frozen=True)
class Kind:
    """Photographs of one size.

    Attributes:
        pixels: of one photograph.
        share: part of all photographs, in any unit.
        seconds: computing time of one photograph.
    """

    pixels: int
    share: float
    seconds: float


@dataclass(frozen=True)
class Cluster:
    """Resources that the workers share, and their failures.

    Attributes:
        bandwidth: of the store in each direction, bytes per second, all workers together.
        link: between one worker and the store in each direction, bytes per second.
        latency: seconds until the first byte of a download, or the acknowledgement of an upload.
        read, written: bytes of a file per megapixel.
        listing: names per second that the store lists.
        handing: seconds of the driver per photograph.
        start: seconds until a worker is ready: machine, container image, model.
        losses: expected failures per worker-hour.
        back: seconds until a lost worker is replaced; then the new one starts.
        shards: each worker has its own shard and lists for itself; otherwise a driver lists and assigns
            photographs to free workers.
        ahead: maximum number of photographs that wait in a worker; None: as in the pipeline.
    """

    bandwidth: float = 1e9
    link: float = 125e6
    latency: float = 0.05
    read: float = 0.5e6
    written: float = 1e6
    listing: float = 5000.0
    handing: float = 0.001
    start: float = 60.0
    losses: float = 0.01
    back: float = 60.0
    shards: bool = False
    ahead: int | None = None


class Outcome(NamedTuple):
    """Result of a simulation.

    Attributes:
        seconds: from requesting the workers until the last result is written.
        worker_seconds: paid time of all workers.
        busy: fraction of `worker_seconds` spent computing results that were kept.
        again: photographs that were repeated because their worker was lost.
        limit: the resource that would take longest if all others took no time.
    """

    workers: int
    seconds: float
    worker_seconds: float
    busy: float
    again: int
    limit: str

    def cost(self, price: float, gigabytes: float, price_per_gigabyte: float) -> float:
        """Return the cost, from prices per worker-hour and per GB moved."""
        return self.worker_seconds / HOUR * price + gigabytes * price_per_gigabyte


class Portion(NamedTuple):
    """Photographs simulated as one: bytes to read and to write, seconds of computing."""

    photographs: int
    read: float
    written: float
    seconds: float

    def part(self, count: int) -> Portion:
        share = count / self.photographs
        return Portion(count, self.read * share, self.written * share, self.seconds * share)


class Pipe:
    """One direction of the store, first come, first served."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.free = 0.0

    def moved(self, now: float, count: int, size: float) -> float:
        """Return when `count` files, requested one after the other from `now` on, are transferred."""
        began = max(now + self.cluster.latency, self.free)
        self.free = began + size / self.cluster.bandwidth
        return max(self.free, began + size / self.cluster.link) + (count - 1) * self.cluster.latency


class Worker:
    """State of a worker."""

    def __init__(self, number: int, work: deque[Portion]) -> None:
        self.number, self.work = number, work
        self.lives(0.0, math.inf)

    def lives(self, now: float, until: float) -> None:
        """Replace the worker by a new, empty one."""
        self.until = until
        self.computed = self.written = now  # when its queued work ends
        self.begun: deque[float] = deque()  # start of computing of the last photographs
        self.writes: deque[float] = deque()  # end of their writes


def simulate(
    kinds: Sequence[Kind], images: int, workers: int, cluster: Cluster = Cluster(), seed: int = 0
) -> Outcome:
    """Simulate `workers` restoring `images` photographs. The same seed gives the same result.

    Raises:
        UsageError: workers are lost before they finish anything.
    """
    return Simulation(kinds, images, workers, cluster, seed).run()


def bounds(kinds: Sequence[Kind], images: int, workers: int, cluster: Cluster) -> dict[str, float]:
    """Return the seconds that each resource would take if all others took no time."""
    megapixels, seconds = means(kinds)
    size = megapixels * max(cluster.read, cluster.written)
    return {
        "computing": images * seconds / workers,
        "the store's bandwidth": images * size / cluster.bandwidth,
        "the workers' links": images / workers * (cluster.latency + size / cluster.link),
        "listing": images / cluster.listing,
        "the driver": 0.0 if cluster.shards else images * cluster.handing,
        "the start of workers": cluster.start,
    }


def best(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the fastest outcome among those with at most CHEAP times the fewest worker-hours."""
    least = min(outcome.worker_seconds for outcome in outcomes)
    cheap = [outcome for outcome in outcomes if outcome.worker_seconds <= CHEAP * least]
    return min(cheap, key=lambda outcome: outcome.seconds)


def first_wasteful(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the first outcome whose busy fraction is less than half of the first outcome's."""
    return next((outcome for outcome in outcomes if outcome.busy < 0.5 * outcomes[0].busy), None)


def fewest(
    kinds: Sequence[Kind], images: int, seconds: float, cluster: Cluster = Cluster(), seed: int = 0
) -> Outcome | None:
    """Find the fewest workers that finish in this time; None if MOST_WORKERS do not.

    Assumes that more workers are not slower, which holds except for random effects.
    """
    most = min(images, MOST_WORKERS)
    if max(bounds(kinds, images, most, cluster).values()) > seconds:
        return None
    low, high = 0, max(1, math.ceil(images * means(kinds)[1] / seconds))  # computing alone needs that many
    found: Outcome | None = None
    while found is None and low < most:
        high = min(high, most)
        outcome = simulate(kinds, images, high, cluster, seed)
        if outcome.seconds <= seconds:
            found = outcome
        else:
            low, high = high, max(high + 1, high * 3 // 2)
    while found is not None and found.workers - low > 1:
        middle = (low + found.workers) // 2
        outcome = simulate(kinds, images, middle, cluster, seed)
        if outcome.seconds <= seconds:
            found = outcome
        else:
            low = middle
    return found


def means(kinds: Sequence[Kind]) -> tuple[float, float]:
    """Return the mean megapixels and seconds of a photograph."""
    total = sum(kind.share for kind in kinds)
    pixels, seconds = (
        sum(kind.share * value for kind, value in zip(kinds, values, strict=True)) / total
        for values in ([kind.pixels for kind in kinds], [kind.seconds for kind in kinds])
    )
    return pixels / MEGA, seconds


def gigabytes_moved(kinds: Sequence[Kind], images: int, cluster: Cluster) -> float:
    return images * means(kinds)[0] * (cluster.read + cluster.written) / 1e9


def stated_kinds(sizes: Sequence[tuple[int, int, float]], seconds_per_megapixel: float) -> list[Kind]:
    """Make kinds from heights, widths and shares."""
    return [Kind(h * w, share, h * w / MEGA * seconds_per_megapixel) for h, w, share in sizes]


def timed_kinds(sizes: Sequence[tuple[int, int, float]], restorer: Restorer) -> list[Kind]:
    """Make kinds from heights, widths and shares; computing is timed on this machine."""
    from maximir.restoring.estimate import estimate

    return [Kind(h * w, share, estimate(restorer, h, w).seconds) for h, w, share in sizes]


def read_sample(report: Path) -> list[Kind]:
    """Read sizes and seconds of photographs from a report of `maximir restore`.

    Raises:
        UsageError: it cannot be read, or has no restored photograph.
    """
    kinds, number = [], 0
    try:
        with report.open(encoding="utf-8") as lines:
            for text in lines:
                number += 1
                line = json.loads(text)
                if line.get("status") == "restored" and line["seconds"] > 0:
                    kinds.append(Kind(int(line["height"] * line["width"]), 1.0, float(line["seconds"])))
    except OSError as error:
        raise UsageError(f"{report}: {reason(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{report}, line {number}: is not a line of a report of maximir restore") from error
    if not kinds:
        raise UsageError(f"{report}: no photograph was restored in it")
    kinds.sort(key=lambda kind: (kind.pixels, kind.seconds))
    parts = [kinds[i * len(kinds) // KINDS : (i + 1) * len(kinds) // KINDS] for i in range(KINDS)]
    return [
        Kind(round(pixels * MEGA), len(part), seconds)
        for part in parts
        if part
        for pixels, seconds in [means(part)]
    ]


class Simulation:
    """Events of one run, in order of time."""

    def __init__(self, kinds: Sequence[Kind], images: int, workers: int, cluster: Cluster, seed: int) -> None:
        self.kinds, self.images, self.cluster = kinds, images, cluster
        self.rng = np.random.default_rng([seed, workers])
        self.size = max(1, images // max(PORTIONS, PORTIONS_EACH * workers))  # photographs per portion
        shares = np.array([kind.share for kind in kinds], float)
        shares /= shares.sum()
        self.megapixels, self.seconds = means(kinds)  # of a photograph
        if cluster.shards:
            counts = self.rng.multinomial(images, np.full(workers, 1 / workers))
            lines = [deque(self.portions(int(count), shares)) for count in counts]
        else:
            lines = [deque(self.portions(images, shares))] * workers  # one shared queue
        self.workers = [Worker(number, line) for number, line in enumerate(lines)]
        self.left = sum(map(len, lines)) if cluster.shards else len(lines[0])
        ahead = cluster.ahead or min(WAITING_PHOTOS, math.ceil(WAITING_BYTES / (3 * MEGA * self.megapixels)))
        self.ahead = max(1, ahead // self.size)
        self.reads, self.writes = Pipe(cluster), Pipe(cluster)
        self.handed, self.driver_free = 0, 0.0  # photographs assigned by the driver; when it is free
        self.idle: list[Worker] = []
        self.again = self.in_vain = 0
        self.ended = np.zeros(workers)  # time of each worker's last write
        self.events: list[tuple[float, int, str, Worker, Portion | None, float]] = []
        self.event_count = 0

    def portions(self, images: int, shares: np.ndarray) -> list[Portion]:
        counts = np.full(math.ceil(images / self.size), self.size)
        counts[-1:] = images - self.size * (len(counts) - 1)
        drawn = self.rng.multinomial(counts, shares)  # [portions, kinds]
        seconds = drawn @ np.array([kind.seconds for kind in self.kinds])
        megapixels = drawn @ np.array([kind.pixels / MEGA for kind in self.kinds])
        return [
            Portion(count, size * self.cluster.read, size * self.cluster.written, computing)
            for count, size, computing in zip(
                counts.tolist(), megapixels.tolist(), seconds.tolist(), strict=True
            )
        ]

    def run(self) -> Outcome:
        cluster = self.cluster
        for worker in self.workers:
            self.starts(worker, 0.0)
        while self.left:
            now, _, what, worker, portion, until = heapq.heappop(self.events)
            if what == "read":
                self.reads_next(now, worker)
            elif what == "write" and portion is not None:
                self.writes_one(now, worker, portion, until)
            elif portion is not None:
                self.comes_back(now, worker, portion)
        end = float(self.ended.max())
        paid = float(self.ended.sum()) if cluster.shards else end * len(self.workers)
        busy = self.seconds * self.images / paid
        alone = bounds(self.kinds, self.images, len(self.workers), cluster)
        limit = max(alone, key=lambda name: alone[name])
        return Outcome(len(self.workers), end, paid, busy, self.again, limit)

    def happens(
        self,
        when: float,
        what: Literal["read", "write", "back"],
        worker: Worker,
        portion: Portion | None = None,
        until: float = 0.0,
    ) -> None:
        self.event_count += 1  # breaks ties in order of scheduling
        heapq.heappush(self.events, (when, self.event_count, what, worker, portion, until))

    def starts(self, worker: Worker, now: float) -> None:
        """Start a worker and draw the time of its loss."""
        ready = now + self.cluster.start
        losses = self.cluster.losses / HOUR
        listed = ready + (self.images / self.cluster.listing if self.cluster.shards else 0.0)
        worker.lives(listed, ready + (self.rng.exponential(1 / losses) if losses else math.inf))
        self.happens(listed, "read", worker)

    def reads_next(self, now: float, worker: Worker) -> None:
        """Let a worker with room read its next photograph."""
        cluster = self.cluster
        if now >= worker.until:
            self.fails()
            self.starts(worker, worker.until + cluster.back)
            return
        if not worker.work:
            self.idle.append(worker)
            return
        portion = worker.work.popleft()
        asked = now if cluster.shards else self.hand_out(now, portion.photographs)
        there = self.reads.moved(asked, portion.photographs, portion.read)
        begun = max(there, worker.computed)
        if len(worker.writes) > self.ahead:  # the line behind it is full
            begun = max(begun, worker.writes.popleft())
        computed = worker.computed = begun + portion.seconds
        worker.begun.append(begun)
        room = worker.begun.popleft() if len(worker.begun) > self.ahead else 0.0
        if computed <= worker.until:
            self.happens(computed, "write", worker, portion, worker.until)
        else:
            self.loses(worker, portion, (worker.until - begun) / portion.seconds)
        self.happens(min(max(there, room), max(now, worker.until)), "read", worker)

    def fails(self) -> None:
        """Count the loss of a worker or of a portion that it was writing.

        Raises:
            UsageError: none of many losses in a row left a portion finished.
        """
        self.in_vain += 1
        in_a_row, for_each = MOST_LOST
        if self.in_vain > in_a_row + for_each * len(self.workers):
            raise UsageError("the workers are lost before they finish photographs")

    def hand_out(self, now: float, count: int) -> float:
        """Return when the driver has assigned the next photographs, which it must have listed first."""
        self.handed += count
        listed = self.cluster.start + min(self.handed, self.images) / self.cluster.listing
        self.driver_free = max(self.driver_free, now) + count * self.cluster.handing
        return max(self.driver_free, listed)

    def loses(self, worker: Worker, portion: Portion, done: float) -> None:
        """Lose a worker during a portion, of which this fraction (0 … 1) is finished."""
        whole = min(portion.photographs - 1, int(max(0.0, done) * portion.photographs))
        self.again += done > 0
        self.happens(worker.until, "back", worker, portion.part(portion.photographs - whole))

    def comes_back(self, now: float, worker: Worker, portion: Portion) -> None:
        """Return a lost worker's portion to its queue, and wake idle workers of that queue."""
        worker.work.appendleft(portion)
        for other in [other for other in self.idle if other.work is worker.work]:
            self.idle.remove(other)
            self.happens(now, "read", other)

    def writes_one(self, now: float, worker: Worker, portion: Portion, until: float) -> None:
        written = self.writes.moved(max(now, worker.written), portion.photographs, portion.written)
        if written > until:
            self.fails()
            self.again += 1
            self.happens(max(now, until), "back", worker, portion.part(1))
            return
        if until == worker.until:  # not of one that was replaced meanwhile
            worker.written = written
            worker.writes.append(written)
        self.left -= 1
        self.in_vain = 0
        self.ended[worker.number] = max(written, self.ended[worker.number])
