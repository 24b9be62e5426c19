"""Work that may crash, hang or take all memory, in a process that is watched and replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar

import psutil

Case = TypeVar("Case")
PATIENCE = 8
CRASH, HANG, UNTYPED = "crash", "hang", "untyped"  # how an outcome begins that is never right


@dataclass(frozen=True)
class Verdict(Generic[Case]):
    """What became of a case.

    Attributes:
        outcome: what the work said; or CRASH, HANG or UNTYPED and the particulars.
        peak: bytes that the process held at most during this case, more than before; 0 where unknown.
    """

    case: Case
    outcome: str
    seconds: float
    peak: int

    @property
    def bad(self) -> bool:
        return self.outcome.startswith((CRASH, HANG, UNTYPED))


def watch(
    work: Callable[[Case], str], cases: Iterable[Case], *, seconds: float = 15.0, memory: int = 0
) -> Iterator[Verdict[Case]]:
    """Do the cases one after the other in a child, which is replaced when one kills it or takes too long.

    Args:
        work: a module's function: says what it did. What it raises makes the case UNTYPED.
        seconds: a case that computes longer hangs; on a busy machine it may wait PATIENCE times as long.
        memory: bytes of address space that the child may have; 0: no limit.
    """
    child: Child | None = None
    try:
        for case in cases:
            child = child or Child(work, memory)
            began = time.monotonic()
            outcome, peak = child.ask(case, seconds)
            if outcome.startswith((CRASH, HANG)):
                child = None
            yield Verdict(case, outcome, time.monotonic() - began, peak)
    finally:
        if child is not None:
            child.end()


class Child:
    """A process that does cases."""

    def __init__(self, work: Callable[..., str], memory: int) -> None:
        context = multiprocessing.get_context(
            "spawn"
        )  # libvips has threads: a fork would inherit their locks
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, work, memory), daemon=True)
        self.process.start()
        theirs.close()
        with contextlib.suppress(EOFError):  # it died while importing: the first case tells
            self.pipe.recv()

    def ask(self, case: object, seconds: float) -> tuple[str, int]:
        try:
            self.pipe.send(case)
            before = self.computed()
            for _ in range(PATIENCE):
                if self.pipe.poll(seconds):
                    return self.pipe.recv()
                if self.computed() - before > seconds:
                    break
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            return f"{CRASH}: {signal.Signals(-code).name if code < 0 else f'exit {code}'}", 0
        self.end()
        return f"{HANG}: over {seconds:g} s", 0

    def computed(self) -> float:
        """Seconds of the processor."""
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self.process.pid).cpu_times()
            return times.user + times.system
        return 0.0

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection, work: Callable[[object], str], memory: int) -> None:
    """The child's side."""
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        case = pipe.recv()
        forget_peak()
        before = peak_memory()
        try:
            outcome = work(case)
        except BaseException as error:
            outcome = f"{UNTYPED}: {type(error).__name__}: {error}"
        pipe.send((outcome, max(0, peak_memory() - before)))


def forget_peak() -> None:
    """From now on `peak_memory` is what is held now, or comes: Linux only."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Bytes that this process held at most."""
    if sys.platform != "linux":
        return 0
    line = next(t for t in Path("/proc/self/status").read_text().splitlines() if t.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
