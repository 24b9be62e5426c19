"""Files and folders through a `Restorer`: what goes where, one at a time, and no failure stops the rest."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from maximir import images
from maximir.errors import MaximirError, UsageError
from maximir.restore import Restorer

IGNORED = {"thumbs.db", "desktop.ini"}  # what file managers leave in folders of pictures; so are dot files
FALLBACK_SUFFIX = ".png"  # for images of formats that can be read but not written


@dataclass(frozen=True)
class Job:
    """One photograph to restore."""

    source: Path
    target: Path

    @property
    def weight(self) -> int:
        """The file's size, a rough measure of the work for the remaining-time estimate."""
        try:
            return max(1, self.source.stat().st_size)
        except OSError:
            return 1


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is None if it was done."""

    job: Job
    error: str | None
    notes: tuple[str, ...]
    seconds: float


def plan(inputs: Sequence[Path], output: Path) -> list[Job]:
    """Which file becomes which.

    A file goes into the output folder under its own name (or is written to `output` itself, if that is
    named like an image and there is one input); a folder's files keep their places below it. Images of
    formats that cannot be written become PNGs.

    Raises:
        UsageError: no inputs, an output that is an input, two inputs for one output.
    """
    to_file = (
        len(inputs) == 1
        and not inputs[0].is_dir()
        and not output.is_dir()
        and output.suffix.lower() in images.WRITABLE
    )
    if output.suffix and not output.is_dir() and not to_file and output.suffix.lower() in images.WRITABLE:
        raise UsageError(f"{output}: is named like one image, but the inputs are a folder or several files")
    jobs: dict[Path, Job] = {}
    for given in inputs:
        for source, place in files_below(given, output) if given.is_dir() else [(given, Path(given.name))]:
            suffix = (
                place.suffix if place.suffix.lower() in images.WRITABLE else place.suffix + FALLBACK_SUFFIX
            )
            target = output if to_file else output / place.with_suffix(suffix)
            if target.resolve() == source.resolve():
                raise UsageError(f"{source}: input and output are the same file; choose another output")
            if target in jobs:
                raise UsageError(f"{jobs[target].source} and {source} would both become {target}")
            jobs[target] = Job(source, target)
    if not jobs:
        raise UsageError(f"no files in {', '.join(map(str, inputs))}")
    return list(jobs.values())


def files_below(folder: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """(file, its place below `folder`), sorted; without what lies in the output folder."""
    if folder.resolve() == output.resolve():
        raise UsageError(f"{folder}: input and output are the same folder; choose another output")
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts) or path.name.lower() in IGNORED
        if not hidden and not path.is_dir() and output.resolve() not in path.resolve().parents:
            yield path, place  # not only what is named like an image: nothing is left out silently


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
        raise UsageError(f"{folder}: cannot write there ({error.strerror or error})") from error


def restore_files(
    restorer: Restorer,
    jobs: Sequence[Job],
    *,
    overwrite: bool,
    started: Callable[[Job], None] = lambda job: None,
) -> Iterator[Outcome]:
    """Do the jobs one after the other; each yields its outcome, good or bad."""
    for job in jobs:
        started(job)
        clock = time.monotonic()
        error: str | None = None
        notes: tuple[str, ...] = ()
        try:
            notes = restore_file(restorer, job, overwrite=overwrite)
        except MaximirError as problem:
            error = str(problem)
        yield Outcome(job, error, notes, time.monotonic() - clock)


def restore_file(restorer: Restorer, job: Job, *, overwrite: bool) -> tuple[str, ...]:
    """Do one job; what there is to say about the photograph.

    Raises:
        MaximirError: the reason, without the source's path.
    """
    if os.path.lexists(job.target) and not overwrite:
        raise MaximirError(f"{job.target} exists; use --overwrite to replace it")
    photo = images.read(job.source)
    restored = restorer.restore_photo(photo)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        images.write(restored, job.target)
    except OSError as problem:
        raise MaximirError(f"{job.target.parent}: {problem.strerror or problem}") from problem
    except MaximirError as problem:
        raise MaximirError(f"{job.target}: {problem}") from problem
    return photo.notes
