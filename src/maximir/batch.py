"""Files and folders through a `Restorer`: what goes where, and no failure stops the rest.

Reading and writing overlap with computing. Each has a thread, and a line of photographs: before computing,
those that wait for it; behind it, those that wait to be written. One more enters a line as long as it holds
less than WAITING_PHOTOS and WAITING_BYTES. So the decoded pixels in memory are what is in work and at most
2 · WAITING_BYTES and two photographs: of large ones, one read ahead and one being written.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maximir import images
from maximir.errors import MaximirError, UsageError
from maximir.files import reason
from maximir.images import Photo

if TYPE_CHECKING:  # torch takes a second to import: what is wrong with a request is told before
    from maximir.restore import Restorer

IGNORED = {"thumbs.db", "desktop.ini"}  # what file managers leave in folders of pictures; so are dot files
FALLBACK_SUFFIX = ".png"  # for images of formats that can be read but not written
WAITING_PHOTOS = 64
WAITING_BYTES = 64 * 2**20  # a photograph of 22 megapixels: one larger waits alone


@dataclass(frozen=True)
class Job:
    """One photograph to restore; `problem` says why it cannot be, if that is known before."""

    source: Path
    target: Path
    problem: str | None = None

    @property
    def weight(self) -> int:
        """The file's size, a rough measure of the work for the remaining-time estimate."""
        try:
            return max(1, os.path.getsize(self.source))
        except OSError:
            return 1


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is None if it was done."""

    job: Job
    error: str | None
    notes: tuple[str, ...]
    seconds: float


@dataclass(eq=False)
class Work:
    """A job on its way."""

    job: Job
    photo: Photo | None = None  # decoded, then restored; none after a failure or once written
    error: str | None = None
    crash: BaseException | None = None  # not the file's fault: raised where it is taken from the line
    seconds: float = 0.0  # of computing

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width."""
        return None if self.photo is None else self.photo.rgb.shape[:2]

    @property
    def bytes(self) -> int:
        photo = self.photo  # once: the writer's thread may drop it meanwhile
        return 0 if photo is None else photo.rgb.nbytes


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
            if target in jobs:
                other = jobs[target].source
                if given not in other.parents:
                    raise UsageError(f"{other} and {source} would both become {target}")
                jobs[source] = Job(source, target, f"would become {target}, as {other.name} does")
            else:
                jobs[target] = Job(source, target)
    if not jobs:
        raise UsageError(f"no files in {', '.join(map(str, inputs))}")
    return list(jobs.values())


def result_name(name: str) -> str:
    """The name of the result: the same, or with .png behind it."""
    return name if name.lower().endswith(images.WRITABLE) else name + FALLBACK_SUFFIX


def files_below(folder: Path, output: Path) -> Iterator[tuple[Path, str | None]]:
    """(path, why it cannot be done), sorted; without what is in the output folder.

    Not only what is named like an image: nothing but hidden files is left out silently.
    """
    excluded = os.path.realpath(output)
    if os.path.realpath(folder) == excluded:
        raise UsageError(f"{folder}: input and output are the same folder; choose another output")
    unreadable: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=unreadable.append):
        here = Path(root)
        for name in sorted(folders):
            if os.path.islink(here / name) and not hidden(name):
                yield here / name, "is a link to a folder, not followed"
        folders[:] = sorted(
            name for name in folders if not hidden(name) and os.path.realpath(here / name) != excluded
        )
        for name in sorted(names):
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
    started: Callable[[Job], None] = lambda job: None,
) -> Generator[Outcome, None, None]:
    """Do the jobs; each yields its outcome, good or bad, in their order.

    Neighbours of equal size are restored together where the restorer says that this is faster. To stop early,
    close the generator: what is being read or written is finished, nothing else is begun.

    Args:
        overwrite: replace targets that exist.
        started: called with each job whose photograph could be read, when computing begins.

    Raises:
        Exception: anything but the `MaximirError` of one file, also from the threads.
    """
    restorer.reserve = 2 * WAITING_BYTES if len(jobs) > 1 else 0
    writer = ThreadPoolExecutor(1, "maximir-writer")
    writing: deque[tuple[Work, Future[Outcome]]] = deque()
    with closing(read_ahead(jobs, overwrite)) as works:
        try:
            for size, alike in itertools.groupby(works, key=lambda work: work.size):
                most = 1 if size is None else restorer.batch_size(*size)
                # Waits for the next ones, rather than take what is there: the same folder, the same bits.
                while together := list(itertools.islice(alike, most)):
                    while writing and writing[0][1].done():
                        yield writing.popleft()[1].result()
                    if size is not None:
                        for work in together:
                            started(work.job)
                        restore_together(restorer, together)
                    for work in together:
                        while is_full([work for work, _ in writing]):
                            yield writing.popleft()[1].result()
                        writing.append((work, writer.submit(write, work, overwrite)))
            while writing:
                yield writing.popleft()[1].result()
        finally:
            writer.shutdown(cancel_futures=True)


def is_full(line: Collection[Work]) -> bool:
    return len(line) >= WAITING_PHOTOS or sum(work.bytes for work in line) >= WAITING_BYTES


def read_ahead(jobs: Sequence[Job], overwrite: bool) -> Generator[Work, None, None]:
    """The jobs in their order, read by a thread that runs ahead until its line is full.

    The thread never waits for room: it pauses, and each photograph that is taken sets it going again. So no
    thread is left hanging when the generator is forgotten instead of closed.
    """
    left = iter(jobs)
    line: deque[Work] = deque()
    changed = threading.Condition()

    def fill() -> None:
        while True:
            with changed:
                job = None if is_full(line) else next(left, None)
            if job is None:
                return
            work = read(job, overwrite)
            with changed:
                line.append(work)
                changed.notify()

    reader = ThreadPoolExecutor(1, "maximir-reader")
    try:
        reader.submit(fill)
        for _ in jobs:
            with changed:
                changed.wait_for(lambda: line)
                work = line.popleft()
            if work.crash is not None:
                raise work.crash
            reader.submit(fill)
            yield work
    finally:
        left = iter(())
        reader.shutdown()


def read(job: Job, overwrite: bool) -> Work:
    """Decode the photograph, unless it is known that its result cannot be written."""
    try:
        if error := job.problem or taken(job.target, overwrite):
            return Work(job, error=error)
        photo = images.read(job.source)
        images.check_fits(photo, job.target)
    except MaximirError as problem:
        return Work(job, error=str(problem))  # not the exception, which would keep the photograph alive
    except BaseException as crash:
        return Work(job, crash=crash)
    return Work(job, photo)


def restore_together(restorer: Restorer, works: Sequence[Work]) -> None:
    """Restore photographs of one size; if they fail together, each alone, so that the right one is named."""
    clock, restored, error = time.monotonic(), [], None
    try:
        restored = restorer.restore_photos([work.photo for work in works if work.photo is not None])
    except MaximirError as problem:
        error = str(problem)
    share = (time.monotonic() - clock) / len(works)
    for work in works:
        work.seconds += share
    if error is None:
        for work, photo in zip(works, restored, strict=True):
            work.photo = photo
    elif len(works) == 1:
        works[0].photo, works[0].error = None, error
    else:  # not within `except`: there the exception keeps alive what did not fit into memory
        for work in works:
            restore_together(restorer, [work])


def write(work: Work, overwrite: bool) -> Outcome:
    """Write the photograph, if there is one; what became of the job."""
    job, photo, error = work.job, work.photo, work.error
    notes: tuple[str, ...] = ()
    # Asked again: it may have appeared since, also as another job's result where case makes no difference.
    if photo is not None and not (error := taken(job.target, overwrite)):
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            notes = photo.notes + images.write(photo, job.target)
        except OSError as problem:
            error = f"{job.target.parent}: {reason(problem)}"
        except MaximirError as problem:
            error = f"{job.target}: {problem}"
    work.photo = None
    return Outcome(job, error, notes, work.seconds)


def taken(target: Path, overwrite: bool) -> str | None:
    """Why there cannot be a result at `target`, if something is there already."""
    there = os.path.lexists(target) and not overwrite
    return f"{target} exists; use --overwrite to replace it" if there else None
