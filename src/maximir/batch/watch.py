"""A folder that is watched: photographs that arrive are restored when they are complete.

A photograph is complete when it has not changed for a while. The journal of the results tells what is done,
so a watch that was killed goes on. A photograph that cannot be restored may still be on its way: it is tried
again after GRACE times this while, and then set aside, with the reason beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from maximir.batch.outcome import Outcome
from maximir.batch.plan import Job, Plan, plan
from maximir.errors import UsageError
from maximir.files import reason, write_atomically
from maximir.storage import is_address, local_path

FAILED = "failed"  # folder in the inbox
GRACE = 30
RETRY = 30.0  # seconds before another attempt where the result, not the photograph, was the problem
LOOK = 60.0  # seconds: events may be lost
PAUSE = 0.2  # seconds at least between two looks
OR_POLL = "or look every 10 seconds with --poll 10"
IGNORED = ("opened", "closed_no_write")  # events of reading


@dataclass
class Arrival:
    """A file in the inbox.

    Attributes:
        facts: what changes when it is written to.
        since: when it was first seen so.
        wait: seconds until it is tried.
        done: nothing is to be done with it as it is.
        unwritten: number of results of it that could not be written.
    """

    facts: tuple[int, ...]
    since: float
    wait: float
    done: bool = False
    unwritten: int = 0


class Inbox:
    """The folder and what is known about its files.

    Args:
        settle: seconds without a change after which a file is complete.
        clock: of seconds that only go on.

    Raises:
        UsageError: it is no folder, or in the output, or the output is in it.
    """

    def __init__(
        self,
        folder: Path,
        output: str,
        settle: float,
        report: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.output, self.settle = folder, output, settle
        self.report, self.clock = report, clock
        self.arrivals: dict[str, Arrival] = {}
        if not folder.exists():
            raise UsageError(f"{folder}: does not exist; make the folder that is to be watched")
        if not folder.is_dir():
            raise UsageError(f"{folder}: is no folder; `maximir watch` takes one, on a disk")
        if not is_address(output):
            inside, outside = os.path.realpath(folder), os.path.realpath(local_path(output))
            if inside == outside:
                raise UsageError(f"{folder}: input and output are the same folder; choose another output")
            if outside.startswith(os.path.join(inside, "")):
                raise UsageError(f"{output}: is inside the watched folder; choose an output beside it")
            if inside.startswith(os.path.join(outside, "")):
                raise UsageError(f"{folder}: is inside the output; watch a folder beside it")

    def look(self) -> Plan:
        """Return the plan of the photographs that are to be restored now, perhaps none.

        Raises:
            MaximirError: the folder cannot be listed.
        """
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder}: the watched folder is gone")
        planned = plan([self.folder], self.output, report=self.report, may_be_empty=True)
        now, jobs, there = self.clock(), [], set()
        for job in planned.jobs:
            if job.source.path.split("/")[0] == FAILED:
                continue
            with contextlib.suppress(OSError):  # it has just gone
                facts = facts_of(job)
                there.add(job.source.path)
                arrival = self.arrivals.get(job.source.path)
                if arrival is None or arrival.facts != facts:
                    arrival = self.arrivals[job.source.path] = Arrival(facts, now, self.settle)
                if not arrival.done and now - arrival.since >= arrival.wait:
                    jobs.append(job)
        self.arrivals = {path: arrival for path, arrival in self.arrivals.items() if path in there}
        # On a disk that is nearly full, a large result must not hold up small ones.
        jobs.sort(key=lambda job: self.arrivals[job.source.path].unwritten)
        return dataclasses.replace(planned, jobs=jobs)

    def patience(self) -> float:
        """Return the seconds until the next file may be complete; at most LOOK."""
        now = self.clock()
        waits = (each.since + each.wait - now for each in self.arrivals.values() if not each.done)
        return max(PAUSE, min([LOOK, *waits]))

    def postpone(self, jobs: Sequence[Job]) -> None:
        """Try these again later: something else than the photographs was wrong."""
        for job in jobs:
            if (arrival := self.arrivals.get(job.source.path)) is not None and not arrival.done:
                arrival.wait = self.clock() - arrival.since + RETRY

    def finish(self, outcome: Outcome) -> str | None:
        """Take note of an outcome; return a line about what becomes of a photograph that failed."""
        job = outcome.job
        arrival = self.arrivals[job.source.path]
        if outcome.error is None or outcome.obstructed or job.problem is not None:
            arrival.done = True
            return None
        try:
            if facts_of(job) != arrival.facts:  # it was not complete
                return None
        except OSError:
            return None
        if outcome.size is not None:  # it was restored, but could not be written
            arrival.unwritten += 1
            self.postpone([job])
            return f"{job.source}: tried again in {RETRY:.0f} s"
        if self.clock() - arrival.since < GRACE * self.settle:
            arrival.wait = GRACE * self.settle
            return f"{job.source}: tried again if it has not changed in {arrival.wait:.0f} s"
        arrival.done = True
        why = outcome.error.removeprefix(f"{job.source}: ")
        try:
            return f"{job.source}: set aside as {set_aside(self.folder, job.source.path, why)}"
        except OSError as error:
            return f"{job.source}: cannot be set aside ({reason(error)})"


def facts_of(job: Job) -> tuple[int, ...]:
    """Return facts about a source that change when it is written to.

    Raises:
        OSError: it is gone.
    """
    path = job.source.local
    assert path is not None
    facts = path.lstat() if job.problem is not None else path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def set_aside(folder: Path, place: str, why: str) -> Path:
    """Move a photograph into the folder of failed ones, with the reason in a text beside it; return its path.

    Raises:
        OSError: it cannot be moved.
    """
    wanted = folder / FAILED / place
    wanted.parent.mkdir(parents=True, exist_ok=True)
    target, number = wanted, 1
    while os.path.lexists(target):
        number += 1
        target = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    write_atomically(target.with_name(f"{target.name}.txt"), f"{why}\n".encode())
    os.replace(folder / place, target)
    return target


class Waiter(Protocol):
    """Waits for changes in a folder."""

    def __enter__(self) -> Waiter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def wait(self, seconds: float) -> None:
        """Return at the next change, or after so many seconds."""


class Polling(Waiter):
    """Looks every `seconds`, for network drives, which report no changes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> Polling:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, seconds: float) -> None:
        time.sleep(min(self.seconds, seconds))


class Events(Waiter):
    """Is woken by the system's events.

    Raises:
        UsageError: the library is missing, or the system has no events for this folder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from watchdog.events import FileSystemEventHandler
            from watchdog.observers import Observer
        except ImportError as error:
            raise UsageError(f"to watch a folder, pip install 'maximir[watch]'; {OR_POLL}") from error
        changed = self.changed = threading.Event()

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: Any) -> None:
                if event.event_type not in IGNORED:
                    changed.set()

        self.observer = Observer()
        try:
            self.observer.schedule(Handler(), str(folder), recursive=True)
            self.observer.start()
        except OSError as error:  # too many folders
            raise UsageError(f"{folder}: the system cannot watch it ({reason(error)}); {OR_POLL}") from error

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.observer.stop()
        self.observer.join()

    def wait(self, seconds: float) -> None:
        if self.changed.wait(seconds):
            time.sleep(PAUSE)  # events come in groups
            self.changed.clear()
