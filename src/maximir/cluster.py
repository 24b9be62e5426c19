"""What millions of photographs will take on a cluster, told before it is rented: `maximir plan-cluster`.

A simulation of events. Each worker has the three lines of `pipeline`: one photograph is read, one computed,
one written at a time, and some wait in between. What they share are a store, of limited bandwidth in each
direction, and whoever hands out the work: a driver, or nobody where each worker has its share from the
beginning (`--shard i/n`). Workers come late, and are lost at random; what they had in work is done again.
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

PORTIONS = 20_000  # at least, in which the work is simulated
PORTIONS_EACH = 200  # at least, of each worker: its last one is half a hundredth of its work
MOST_LOST = 20  # times the portions: who loses more gets nowhere
MOST_WORKERS = 2000
CHEAP = 1.1  # times the least worker-hours
KINDS = 100  # that a sample is summed up in
MEGA, HOUR = 1e6, 3600.0


@dataclass(frozen=True)
class Kind:
    """Photographs of one size.

    Attributes:
        pixels: of one.
        share: of all photographs, in any unit.
        seconds: that a worker computes one.
    """

    pixels: int
    share: float
    seconds: float


@dataclass(frozen=True)
class Cluster:
    """What the workers share, and what befalls them.

    Attributes:
        bandwidth: bytes a second of the store, in each direction, for all together.
        link: bytes a second between one worker and the store, in each direction.
        latency: seconds until the first byte of a photograph, or until its end is acknowledged.
        read, written: bytes of a file for each megapixel.
        listing: names a second that the store lists.
        handing: seconds of the driver for each photograph.
        start: seconds until a worker works: machine, image, model.
        losses: of a worker in an hour.
        back: seconds until a lost worker is replaced; then it starts.
        shards: each worker has its share from the beginning and lists for itself; else a driver lists and
            hands out to who is free.
        ahead: photographs at most that wait in a worker; None: as many as the pipeline keeps.
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
    """What a number of workers take.

    Attributes:
        seconds: from asking for the workers until the last result is written.
        worker_seconds: paid for, of all workers.
        busy: part of `worker_seconds` in which results were computed that count.
        again: photographs that were done again, for their worker was lost.
        limit: what would take the longest if all else took no time.
    """

    workers: int
    seconds: float
    worker_seconds: float
    busy: float
    again: int
    limit: str

    def cost(self, price: float, gigabytes: float, price_per_gigabyte: float) -> float:
        """At a price for an hour of a worker, and for each GB that is moved."""
        return self.worker_seconds / HOUR * price + gigabytes * price_per_gigabyte


class Portion(NamedTuple):
    """Some photographs that are simulated as one: bytes to read and to write, seconds of computing."""

    photographs: int
    read: float
    written: float
    seconds: float

    def part(self, count: int) -> Portion:
        share = count / self.photographs
        return Portion(count, self.read * share, self.written * share, self.seconds * share)


class Pipe:
    """One direction of the store: who comes first is served first."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.free = 0.0

    def moved(self, now: float, count: int, size: float) -> float:
        """When so many files, asked for one after the other from `now` on, are through."""
        began = max(now + self.cluster.latency, self.free)
        self.free = began + size / self.cluster.bandwidth
        return max(self.free, began + size / self.cluster.link) + (count - 1) * self.cluster.latency


class Worker:
    """What a worker has under way."""

    def __init__(self, number: int, work: deque[Portion]) -> None:
        self.number, self.work = number, work
        self.lives(0.0, math.inf)

    def lives(self, now: float, until: float) -> None:
        """A new one in its place, with nothing in it."""
        self.until = until
        self.computed = self.written = now  # when its line is done
        self.begun: deque[float] = deque()  # of those that waited last: when they were computed
        self.writes: deque[float] = deque()  # when they were written


def simulate(
    kinds: Sequence[Kind], images: int, workers: int, cluster: Cluster = Cluster(), seed: int = 0
) -> Outcome:
    """What so many workers will take for so many photographs. The same seed gives the same.

    Raises:
        UsageError: the workers are lost faster than they get anything done.
    """
    return Simulation(kinds, images, workers, cluster, seed).run()


def bounds(kinds: Sequence[Kind], images: int, workers: int, cluster: Cluster) -> dict[str, float]:
    """What each part would take alone, in seconds, if all others took no time."""
    megapixels, seconds = means(kinds)
    size = megapixels * max(cluster.read, cluster.written)
    return {
        "computing": images * seconds / workers,
        "the store's bandwidth": images * size / cluster.bandwidth,
        "the workers' links": images / workers * (cluster.latency + size / cluster.link),
        "listing": images / cluster.listing,
        "the driver": 0.0 if cluster.shards else images * cluster.handing,
        "starting": cluster.start,
    }


def best(outcomes: Sequence[Outcome]) -> Outcome:
    """The fastest of those that need hardly more worker-hours than the thriftiest."""
    least = min(outcome.worker_seconds for outcome in outcomes)
    cheap = [outcome for outcome in outcomes if outcome.worker_seconds <= CHEAP * least]
    return min(cheap, key=lambda outcome: outcome.seconds)


def first_wasteful(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The first one in which workers compute less than half as much of their time as in the first of all."""
    return next((outcome for outcome in outcomes if outcome.busy < 0.5 * outcomes[0].busy), None)


def fewest(
    kinds: Sequence[Kind], images: int, seconds: float, cluster: Cluster = Cluster(), seed: int = 0
) -> Outcome | None:
    """The fewest workers that are done in this time; None: no number up to MOST_WORKERS is.

    More workers are taken to be no slower. That is true but for the luck of the draw.
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
    """Megapixels and seconds of a photograph."""
    total = sum(kind.share for kind in kinds)
    pixels, seconds = (
        sum(kind.share * value for kind, value in zip(kinds, values, strict=True)) / total
        for values in ([kind.pixels for kind in kinds], [kind.seconds for kind in kinds])
    )
    return pixels / MEGA, seconds


def gigabytes_moved(kinds: Sequence[Kind], images: int, cluster: Cluster) -> float:
    return images * means(kinds)[0] * (cluster.read + cluster.written) / 1e9


def stated_kinds(sizes: Sequence[tuple[int, int, float]], seconds_per_megapixel: float) -> list[Kind]:
    """From heights, widths and shares."""
    return [Kind(h * w, share, h * w / MEGA * seconds_per_megapixel) for h, w, share in sizes]


def timed_kinds(sizes: Sequence[tuple[int, int, float]], restorer: Restorer) -> list[Kind]:
    """From heights, widths and shares: computing is timed on this machine."""
    from maximir.restoring.estimate import estimate

    return [Kind(h * w, share, estimate(restorer, h, w).seconds) for h, w, share in sizes]


def read_sample(report: Path) -> list[Kind]:
    """Sizes and seconds of the photographs in a report of `maximir restore`.

    Raises:
        UsageError: it cannot be read, or nothing was restored in it.
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
        raise UsageError(f"{report}, line {number}: is not of a report of maximir restore") from error
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
    """The events of one run, in their order."""

    def __init__(self, kinds: Sequence[Kind], images: int, workers: int, cluster: Cluster, seed: int) -> None:
        self.kinds, self.images, self.cluster = kinds, images, cluster
        self.rng = np.random.default_rng([seed, workers])
        self.size = max(1, images // max(PORTIONS, PORTIONS_EACH * workers))  # of a portion
        shares = np.array([kind.share for kind in kinds], float)
        shares /= shares.sum()
        self.megapixels, self.seconds = means(kinds)  # of a photograph
        if cluster.shards:
            counts = self.rng.multinomial(images, np.full(workers, 1 / workers))
            lines = [deque(self.portions(int(count), shares)) for count in counts]
        else:
            lines = [deque(self.portions(images, shares))] * workers  # one line for all
        self.workers = [Worker(number, line) for number, line in enumerate(lines)]
        self.left = sum(map(len, lines)) if cluster.shards else len(lines[0])
        self.portion_count = self.left
        ahead = cluster.ahead or min(WAITING_PHOTOS, math.ceil(WAITING_BYTES / (3 * MEGA * self.megapixels)))
        self.ahead = max(1, ahead // self.size)
        self.reads, self.writes = Pipe(cluster), Pipe(cluster)
        self.handed, self.driver_free = 0, 0.0  # photographs that the driver handed out; when it is free
        self.idle: list[Worker] = []
        self.again = self.lost = 0
        self.ended = np.zeros(workers)  # when each worker wrote its last
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
        self.event_count += 1  # of two at once, the one first that was known first
        heapq.heappush(self.events, (when, self.event_count, what, worker, portion, until))

    def starts(self, worker: Worker, now: float) -> None:
        """A worker is on its way; its end is drawn."""
        ready = now + self.cluster.start
        losses = self.cluster.losses / HOUR
        listed = ready + (self.images / self.cluster.listing if self.cluster.shards else 0.0)
        worker.lives(listed, ready + (self.rng.exponential(1 / losses) if losses else math.inf))
        self.happens(listed, "read", worker)

    def reads_next(self, now: float, worker: Worker) -> None:
        """A worker has room for a photograph."""
        cluster = self.cluster
        if now >= worker.until:
            self.lost += 1
            if self.lost > MOST_LOST * self.portion_count:
                raise UsageError("the workers are lost faster than they get photographs done")
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

    def hand_out(self, now: float, count: int) -> float:
        """When the driver, which knows names only once they are listed, has given a worker its next ones."""
        self.handed += count
        listed = self.cluster.start + min(self.handed, self.images) / self.cluster.listing
        self.driver_free = max(self.driver_free, now) + count * self.cluster.handing
        return max(self.driver_free, listed)

    def loses(self, worker: Worker, portion: Portion, done: float) -> None:
        """A worker dies over a portion, of which this part (0 … 1) is done."""
        whole = min(portion.photographs - 1, int(max(0.0, done) * portion.photographs))
        self.again += done > 0
        self.happens(worker.until, "back", worker, portion.part(portion.photographs - whole))

    def comes_back(self, now: float, worker: Worker, portion: Portion) -> None:
        """What a lost worker had is in its line again; who had nothing to do looks there."""
        worker.work.appendleft(portion)
        for other in [other for other in self.idle if other.work is worker.work]:
            self.idle.remove(other)
            self.happens(now, "read", other)

    def writes_one(self, now: float, worker: Worker, portion: Portion, until: float) -> None:
        written = self.writes.moved(max(now, worker.written), portion.photographs, portion.written)
        if written > until:
            self.again += 1
            self.happens(max(now, until), "back", worker, portion.part(1))
            return
        if until == worker.until:  # not of one that was replaced meanwhile
            worker.written = written
            worker.writes.append(written)
        self.left -= 1
        self.ended[worker.number] = max(written, self.ended[worker.number])
