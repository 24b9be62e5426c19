"""Progress of long work on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from maximir.files import printable

GUESSWORK = 0.03  # fraction of an image below which the remaining time cannot be estimated
PLAIN_EVERY = 15.0  # seconds between lines about one step without a terminal


def in_words(seconds: float) -> str:
    """Format a duration: "8 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class WorkProgress:
    """Steps of known work (in any unit) with an estimate of the remaining time. Use as a context manager.

    Steps that failed or were done before took no work, so they do not count for the estimate.
    """

    def __init__(self, count: int, work: int) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self.count, self.work = count, work
        self.begun_count, self.begun_work, self.step_work = 0, 0, 0
        self.done_count, self.done_work = 0, 0
        self.worked_work, self.worked_seconds = 0, 0.0  # of the steps that count for the estimate
        self.name = ""
        self.step_began = self.told = self.ended = time.monotonic()
        self.bar: Progress | None = None
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeRemainingColumn(compact=True),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task("restoring", total=work)

    def __enter__(self) -> WorkProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, name: str, work: int) -> None:
        """Start a step; several may run at once."""
        self.begun_count += 1
        self.begun_work += work
        self.step_work = work
        self.name = name
        self.step_began = self.told = time.monotonic()
        if self.bar is not None:
            self.bar.update(
                self.task, description=f"{self.begun_count}/{self.count} {escape(printable(name))}"
            )

    def part(self, done: float) -> None:
        """Report the fraction of the latest step that is done."""
        if self.bar is not None:
            before = self.begun_work - self.step_work
            self.bar.update(self.task, completed=max(self.done_work, before + done * self.step_work))
        elif time.monotonic() - self.told > PLAIN_EVERY and 0 < done < 1:
            self.told = time.monotonic()
            left = in_words((self.told - self.step_began) * (1 / done - 1))
            rest = f", {left} left" if done > GUESSWORK else ""
            self._print(f"[{self.begun_count}/{self.count}] {self.name}: {done:.0%}{rest}")

    def succeed(self, line: str, work: int, seconds: float | None) -> None:
        """Finish a step.

        Args:
            seconds: of computing, divided among steps computed together. 0: use the time since the last step.
                None: the step was done before.
        """
        self._advance(work, seconds)
        if self.bar is None:
            line = f"[{self.done_count}/{self.count}] {line}{self._left()}"
        self._print(line)

    def warn(self, line: str) -> None:
        """Print a line that belongs to no step."""
        self._print(line)

    def fail(self, line: str, work: int) -> None:
        """Finish a failed step; print the line without a prefix, for people and scripts."""
        self._advance(work, None)
        self._print(line)

    def _left(self) -> str:
        if self.done_count == self.count or not self.worked_work:
            return ""
        pace = self.worked_seconds / self.worked_work
        return f"  ({in_words(pace * (self.work - self.done_work))} left)"

    def _advance(self, work: int, seconds: float | None) -> None:
        now = time.monotonic()
        since, self.ended = now - self.ended, now
        self.done_count += 1
        self.done_work += work
        if seconds is not None:
            self.worked_work += work
            self.worked_seconds += seconds or since
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done_work)

    def _print(self, line: str) -> None:
        self.console.print(printable(line), markup=False, emoji=False)
