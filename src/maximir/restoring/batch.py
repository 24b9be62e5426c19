"""Files and folders through a restorer: what goes where, and no failure stops the rest."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from maximir import __version__, images
from maximir.errors import MaximirError, UsageError
from maximir.files import JsonLines, reason, walk
from maximir.restoring import pipeline
from maximir.restoring.journal import Entry, Journal
from maximir.restoring.options import Progress, silent
from maximir.restoring.pipeline import Work

if TYPE_CHECKING:  # torch takes a second to import: what is wrong with a request is told before
    from maximir.restoring.restorer import Restorer

IGNORED = {"thumbs.db", "desktop.ini"}  # what file managers leave in folders of pictures; so are dot files
PICTURE_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{1,4}")  # what the name of a file of pictures ends in
FALLBACK_SUFFIX = ".png"  # for images of formats that can be read but not written


@dataclass(frozen=True)
class Job:
    """One photograph to restore; `problem` says why it cannot be, if that is known before."""

    source: Path
    target: Path
    problem: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is None if it was done."""

    job: Planned
    error: str | None
    notes: tuple[str, ...]
    seconds: float
    known: bool = False  # done by an earlier run
    size: tuple[int, int] | None = None  # height and width
    digest: str | None = None  # SHA-256 of the result
    precision: str | None = None  # that it was computed in, in this run

    def facts(self) -> dict[str, Any]:
        """As `Report` has them."""
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
        }


class Planned(Protocol):
    """What outcomes say of a job: that of a path here, or of an address."""

    @property
    def source(self) -> Named: ...
    @property
    def target(self) -> Named: ...
    @property
    def problem(self) -> str | None: ...


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Report:
    """What became of each image, for scripts: a line of JSON each, behind one on the run.

    Raises:
        UsageError: the file cannot be opened.
        MaximirError: it cannot be written.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        try:
            self.lines = JsonLines(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot write the report there ({reason(error)})") from error
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._add({"run": command, "version": __version__, "started": now})

    def add(self, outcome: Outcome) -> None:
        self._add(outcome.facts())

    def close(self) -> None:
        self.lines.close()

    def _add(self, facts: dict[str, Any]) -> None:
        try:
            self.lines.add(facts)
        except OSError as error:
            self.close()
            raise MaximirError(f"{self.path}: cannot be written ({reason(error)})") from error


@dataclass(eq=False)
class Task(Work[Job]):
    """A photograph on its way.

    Attributes:
        ours: the result that an earlier run left; with `done`, it would be the same again.
    """

    ours: Entry | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        return (self.ours.height, self.ours.width) if self.ours is not None and self.done else super().size

    def load(self) -> None:
        with contextlib.suppress(MaximirError):
            self.photo = images.read(self.job.source)


def plan(inputs: Sequence[Path], output: Path) -> list[Job]:
    """Which file becomes which.

    A file goes into the output folder under its own name (or is written to `output` itself, if that is
    named like an image and there is one input); a folder's files keep their places below it. Images of
    formats that cannot be written become PNGs.

    Raises:
        UsageError: no inputs, an output that is an input, two inputs for one output.
    """
    suffix = "" if os.path.isdir(output) else output.suffix.lower()
    if suffix in images.NOT_WRITABLE:
        raise UsageError(f"{output}: cannot write {suffix}; use one of {' '.join(images.WRITABLE)}")
    one = len(inputs) == 1 and not os.path.isdir(inputs[0])
    if one and PICTURE_SUFFIX.fullmatch(suffix) and suffix not in images.WRITABLE:
        raise UsageError(  # a folder of this name would be a surprise
            f"{output}: cannot write {suffix}; use one of {' '.join(images.WRITABLE)}, "
            "or make that folder first if it is one"
        )
    to_file = suffix in images.WRITABLE
    if to_file and (len(inputs) != 1 or os.path.isdir(inputs[0])):
        raise UsageError(f"{output}: is named like one image, but the inputs are a folder or several files")
    jobs: dict[Path, Job] = {}
    for given in inputs:
        in_folder = os.path.isdir(given)
        for source, problem in files_below(given, output) if in_folder else [(given, None)]:
            if problem is not None:
                jobs[source] = Job(source, output, problem)
                continue
            place = source.relative_to(given) if in_folder else Path(given.name)
            target = output if to_file else output / place.with_name(result_name(place.name))
            if os.path.realpath(target) == os.path.realpath(source):
                raise UsageError(f"{source}: input and output are the same file; choose another output")
            other = jobs.get(target)
            if other is None:
                jobs[target] = Job(source, target)
                continue
            loser, winner = source, other.source
            keeps, other_keeps = source.name == target.name, other.source.name == target.name
            if keeps == other_keeps and given not in other.source.parents:
                raise UsageError(f"{other.source} and {source} would both become {target}")
            if keeps:  # who keeps a name has the better right to it
                loser, winner = winner, loser
                jobs[target] = Job(winner, target)
            jobs[loser] = Job(loser, target, f"would become {target}, as {winner.name} does")
    if not jobs:
        raise UsageError(f"no files in {', '.join(map(str, inputs))}")
    return list(jobs.values())


def result_name(name: str) -> str:
    """The name of the result: the same, or with .png behind it."""
    return name if name.lower().endswith(images.WRITABLE) else name + FALLBACK_SUFFIX


def files_below(folder: Path, output: Path | None) -> Iterator[tuple[Path, str | None]]:
    """(path, why it cannot be done), sorted; without what is in the output folder.

    Not only what is named like an image: nothing but hidden files is left out silently.
    """
    excluded = "" if output is None else os.path.realpath(output)
    if os.path.realpath(folder) == excluded:
        raise UsageError(f"{folder}: input and output are the same folder; choose another output")
    unreadable: list[OSError] = []
    for here, loops, names in walk(folder, unreadable.append, leave_out=excluded):
        for name in loops:
            yield here / name, "is a link to a folder that it is in"
        for name in names:
            if not hidden(name):
                yield here / name, None
    for error in unreadable:
        yield Path(error.filename), reason(error)


def hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED


def check_writable(folder: Path) -> None:
    """Make the output folder and try it.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there ({reason(error)})") from error


def restore_files(
    restorer: Restorer,
    jobs: Sequence[Job],
    *,
    overwrite: bool,
    journal: Journal | None = None,
    started: Callable[[Job], None] = lambda job: None,
    progress: Progress = silent,
) -> Generator[Outcome, None, None]:
    """Do the jobs; each yields its outcome, good or bad, in their order: see `pipeline.run`.

    Args:
        overwrite: replace targets that exist.
        journal: where to enter the results; those that are in it and still fit are not computed again.
        started: called with each job whose photograph could be read, when computing begins.
        progress: called with the part that is computed of what began last.
    """
    return pipeline.run(
        jobs,
        functools.partial(read, overwrite=overwrite, journal=journal),
        functools.partial(restorer.restore_photos, progress=progress, reserve=pipeline.reserve(jobs)),
        functools.partial(finish, restorer, overwrite=overwrite, journal=journal),
        batch_size=restorer.batch_size,
        started=started,
    )


def is_done(job: Job, journal: Journal) -> bool:
    """Whether the result is there, and would be the same again."""
    ours = None if job.problem else journal.ours(job.target)
    return ours is not None and journal.is_done(ours, job.source)


def read(job: Job, overwrite: bool, journal: Journal | None) -> Task:
    """Decode the photograph, unless its result is there already or cannot be written."""
    ours = None if journal is None or job.problem else journal.ours(job.target)
    if journal is not None and ours is not None and journal.is_done(ours, job.source):
        return Task(job, ours=ours, done=True)
    # What an earlier run made of another picture, or with other settings, may be replaced.
    resume = journal is not None and journal.resume
    if error := job.problem or taken(job.target, overwrite or ours is not None, resume):
        return Task(job, error=error)
    photo = images.read(job.source)
    images.check_fits(photo, job.target)
    return Task(job, photo, ours=ours)


def finish(restorer: Restorer, work: Work[Job], overwrite: bool, journal: Journal | None) -> Outcome:
    """Write the photograph, if there is one, and drop it; what became of the job."""
    try:
        return write(restorer, work, overwrite, journal)
    finally:
        work.photo = None


def write(restorer: Restorer, work: Work[Job], overwrite: bool, journal: Journal | None) -> Outcome:
    job, photo, error = work.job, work.photo, work.error
    ours = work.ours if isinstance(work, Task) else None
    if work.done and ours is not None:
        return Outcome(job, None, (), work.seconds, True, (ours.height, ours.width), ours.result)
    if photo is None:
        return Outcome(job, error, (), work.seconds)
    height, width = photo.rgb.shape[:2]
    digest = ""

    def announce(result: str) -> None:
        nonlocal digest
        digest = result
        if journal is not None:
            journal.add(job.target, photo.digest, result, height, width)

    # Asked again: it may have appeared since, also as another job's result where case makes no difference.
    if not (error := taken(job.target, overwrite or ours is not None)):
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            notes = photo.notes + images.write(photo, job.target, announce=announce)
            precision = restorer.precision_for(photo.rgb.dtype)
            return Outcome(job, None, notes, work.seconds, False, (height, width), digest, precision)
        except OSError as problem:
            error = f"{job.target.parent}: {reason(problem)}"
        except MaximirError as problem:
            error = f"{job.target}: {problem}"
    return Outcome(job, error, (), work.seconds, size=(height, width))


def taken(target: Path, overwrite: bool, resume: bool = False) -> str | None:
    """Why there cannot be a result at `target`, if something is there already."""
    if overwrite or not os.path.lexists(target):
        return None
    if resume:
        return f"{target} exists, and is not what maximir made of it; use --overwrite to replace it"
    return f"{target} exists; use --overwrite to replace it, or --resume to keep what is done"
