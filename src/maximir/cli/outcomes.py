"""Lines about the images of a run, as they are done, for `restore` and `watch`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maximir.batch.outcome import Outcome, Report
    from maximir.batch.plan import Job
    from maximir.progress import WorkProgress


@dataclass
class Tally:
    """Numbers of images by outcome, and the precisions used."""

    restored: int = 0
    known: int = 0
    failed: int = 0
    precisions: set[str] = field(default_factory=set)

    def in_text(self) -> str:
        before = f"{self.known} done before, " if self.known else ""
        return f"{before}{self.restored} restored, {self.failed} failed"


def follow(
    outcomes: Iterator[Outcome],
    work: dict[Job, int],
    progress: WorkProgress,
    report: Report | None,
    tally: Tally,
    *,
    keep_times: bool,
) -> Iterator[Outcome]:
    """Print a line about each outcome, add it to the report and to the counts, and yield it.

    Args:
        work: estimated, by job.
        keep_times: give each result the times of its source.
    """
    from maximir.batch.restore import copy_times
    from maximir.restoring.links import steps_in_text

    for outcome in outcomes:
        job = outcome.job
        if outcome.precision is not None:
            tally.precisions.add(outcome.precision)
        if keep_times and outcome.error is None:
            copy_times(job)
        if report is not None:
            report.add(outcome)
        if outcome.known:
            tally.known += 1
            progress.succeed(f"{job.source} → {job.target}  (done before)", work[job], None)
        elif outcome.error is None:
            tally.restored += 1
            notes = "".join(f"  [{note}]" for note in (*steps_in_text(outcome.steps), *outcome.notes))
            line = f"{job.source} → {job.target}  {outcome.seconds:.1f} s{notes}"
            progress.succeed(line, work[job], outcome.seconds)
        else:
            tally.failed += 1
            problem = outcome.error.removeprefix(f"{job.source}: ")
            progress.fail(f"{job.source}: {problem}", work[job])
        yield outcome
