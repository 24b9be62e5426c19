"""Outcomes of images, and reports of them for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maximir import __version__
from maximir.batch.plan import Job
from maximir.errors import MaximirError, UsageError
from maximir.files import STREAM, JsonLines, reason

RUN = "run"  # key of a report's first line


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job; `error` is None if it succeeded."""

    job: Job
    error: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0  # of computing
    known: bool = False  # restored by an earlier run
    obstructed: bool = False  # another file is where the result should be
    disk_full: bool = False  # no room for the result
    size: tuple[int, int] | None = None  # height and width
    digest: str | None = None  # SHA-256 of the result
    precision: str | None = None  # of the arithmetic in this run
    steps: tuple[dict[str, Any], ...] = ()  # what each link of a chain did

    def facts(self) -> dict[str, Any]:
        """Return the line of a `Report`."""
        status = "failed" if self.error is not None else "known" if self.known else "restored"
        height, width = self.size or (None, None)
        return {
            "source": str(self.job.source),
            "target": None if self.job.problem else str(self.job.target),
            "status": status,
            "error": self.error,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            "height": height,
            "width": width,
            "sha256": self.digest,
            "precision": self.precision,
            "steps": self.steps,
        }


class Report:
    """Report for scripts: a line of JSON for the run, then one per image; added to an older report.

    Raises:
        UsageError: the file cannot be opened, or is something else than a report.
        MaximirError: it cannot be written.
    """

    def __init__(self, path: Path, command: str) -> None:
        if str(path) == STREAM:
            raise UsageError("--report takes a file; for standard output, give --report /dev/stdout")
        self.path = path
        try:
            self.lines = JsonLines(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot write the report there ({reason(error)})") from error
        if path.is_file() and not self.lines.begins_with(RUN):
            self.close()
            raise UsageError(f"{path}: exists and is not a report; give --report another name")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._add({RUN: command, "version": __version__, "started": now})
        except MaximirError:
            self.close()
            raise

    def add(self, outcome: Outcome) -> None:
        self._add(outcome.facts())

    def close(self) -> None:
        self.lines.close()

    def _add(self, facts: dict[str, Any]) -> None:
        try:
            self.lines.add(facts)
        except OSError as error:
            raise MaximirError(f"{self.path}: cannot be written ({reason(error)})") from error
