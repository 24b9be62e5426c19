"""Pictures through a restorer where storage is no disk, or is shared by many processes.

As `batch`, but for addresses; with records instead of a journal; and each picture by itself: a neighbour in a
batch can change a result's last bit, and here nobody knows who the neighbours will be in the next run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from maximir import images
from maximir.errors import MaximirError, UsageError
from maximir.restoring import extent, pipeline
from maximir.restoring.batch import Outcome, files_below, hidden, result_name
from maximir.restoring.options import Progress, silent
from maximir.restoring.pipeline import Work
from maximir.restoring.records import Record, Records, md5
from maximir.stores import Address, Store, is_address, shown

if TYPE_CHECKING:
    from maximir.restoring.restorer import Restorer

WRITERS = 4  # threads: a store takes its time for each result
LOOKERS = 16


@dataclass(frozen=True)
class Job:
    """One picture to restore; `problem` says why it cannot be, if that is known before."""

    source: Path | Address
    target: Address
    problem: str | None = None


@dataclass(eq=False)
class Task(Work[Job]):
    """A picture on its way.

    Attributes:
        ours: the record of what an earlier run left; with `done`, it would be the same again.
        source_md5: of the source's content, if it came from a store.
    """

    ours: Record | None = None
    source_md5: str = ""


def plan(inputs: Sequence[str], output: Store) -> list[Job]:
    """Which picture becomes which object below `output`: see `batch.plan`.

    Raises:
        UsageError: no inputs, an output that is an input, two inputs for one output, or a store that cannot
            be opened or listed.
    """
    if PurePosixPath(output.root).suffix.lower() in images.WRITABLE:
        raise UsageError(f"{output.shown}: is named like one image; give a folder for the results")
    jobs: dict[str, Job] = {}
    for given in inputs:
        for source, place, problem in sources(given, output):
            if problem is not None:
                jobs[str(source)] = Job(source, Address(output, ""), problem)
                continue
            target = PurePosixPath(place).with_name(result_name(PurePosixPath(place).name)).as_posix()
            job, other = Job(source, Address(output, target)), jobs.get(target)
            if other is None:
                jobs[target] = job
                continue
            if other.source.name == source.name:
                raise UsageError(f"{other.source} and {source} would both become {job.target}")
            loser, winner = other, job  # who keeps a name has the better right to it
            if source.name != job.target.name:
                loser, winner = job, other
            jobs[target] = winner
            why = f"would become {job.target}, as {winner.source.name} does"
            jobs[str(loser.source)] = dataclasses.replace(loser, problem=why)
    if not jobs:
        raise UsageError(f"no files in {', '.join(map(shown, inputs))}")
    return list(jobs.values())


def sources(given: str, output: Store) -> Iterator[tuple[Path | Address, str, str | None]]:
    """What an input means: (source, its place below the input, why it cannot be done)."""
    if not is_address(given):
        path = Path(given)
        if not path.is_dir():
            yield path, path.name, None
            return
        for file, problem in files_below(path, Path(output.root) if output.local else None):
            yield file, file.relative_to(path).as_posix(), problem
        return
    store = Store(given)
    try:
        item = store.item()
    except MaximirError as error:
        raise UsageError(str(error)) from error
    if item is not None:
        source = Address(store, "", item)
        yield source, source.name, None
        return
    if store.schemes == output.schemes and store.root == output.root:
        raise UsageError(f"{store.shown}: input and output are the same folder; choose another output")
    for name, item in store.list():
        in_output = store.schemes == output.schemes and f"{store.root}/{name}".startswith(f"{output.root}/")
        if not in_output and not hidden(PurePosixPath(name).name):
            yield Address(store, name, item), name, None


def shard_of(jobs: Sequence[Job], text: str) -> list[Job]:
    """The jobs of shard "i/n", i from 1 to n: by the hash of the result's path, on every machine the same.

    Raises:
        UsageError: it is written otherwise.
    """
    first, _, second = text.partition("/")
    number, count = (int(part) if part.isdecimal() else 0 for part in (first, second))
    if not 1 <= number <= count:
        raise UsageError(f"--shard is i/n with i from 1 to n, as 3/16; not {text!r}")
    return [job for job in jobs if shard_number(job.target.path, count) == number]


def shard_number(path: str, count: int) -> int:
    """1 … count."""
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8]) % count + 1


def weights(jobs: Sequence[Job]) -> list[int]:
    """How much work the jobs are: by pixels on a disk, by bytes in a store, which need not be read for it."""
    if paths := [job.source for job in jobs if isinstance(job.source, Path)]:
        of_path = dict(zip(paths, extent.estimate_work(paths), strict=True))
    return [
        of_path[job.source] if isinstance(job.source, Path) else max(1, size_of(job.source)) for job in jobs
    ]


def size_of(source: Path | Address) -> int:
    """Bytes; 0 if unknown."""
    if isinstance(source, Address):
        return source.item.size if source.item is not None else 0
    try:
        return source.stat().st_size
    except (OSError, ValueError):
        return 0


def restore_files(
    restorer: Restorer,
    jobs: Sequence[Job],
    *,
    overwrite: bool,
    records: Records,
    started: Callable[[Job], None] = lambda job: None,
    progress: Progress = silent,
) -> Generator[Outcome, None, None]:
    """Do the jobs; each yields its outcome, good or bad, in their order: see `pipeline.run`.

    Args:
        overwrite: replace objects that exist.
        records: where to enter the results; those that are in them and still fit are not computed again.
        started: called with each job whose picture could be read, when computing begins.
        progress: called with the part that is computed of what began last.
    """
    return pipeline.run(
        jobs,
        functools.partial(read, overwrite=overwrite, records=records),
        functools.partial(restorer.restore_photos, progress=progress, reserve=pipeline.reserve(jobs)),
        functools.partial(finish, overwrite=overwrite, records=records),
        batch_size=pipeline.alone,
        finishers=WRITERS,
        started=started,
    )


def left(jobs: Sequence[Job], records: Records) -> Iterator[Job]:
    """Those whose result is not there, or is not what would come of them."""

    def is_done(job: Job) -> bool:
        record = None if job.problem is not None else records.ours(job.target)
        return record is not None and records.is_done(record, job.source)

    with ThreadPoolExecutor(LOOKERS, "maximir-looker") as pool:
        for job, done in zip(jobs, pool.map(is_done, jobs), strict=True):
            if not done:
                yield job


def read(job: Job, overwrite: bool, records: Records) -> Task:
    """Decode the picture, unless its result is there already or cannot be written."""
    if job.problem is not None:
        return Task(job, error=job.problem)
    ours = records.ours(job.target)
    if ours is not None and records.is_done(ours, job.source):
        return Task(job, ours=ours, done=True)
    if error := taken(job.target, overwrite, ours, records):
        return Task(job, error=error)
    if isinstance(job.source, Path):
        photo, source_md5 = images.read(job.source), ""
    else:
        if size_of(job.source) > images.MAX_BYTES:
            raise MaximirError(
                f"the file has {size_of(job.source):,} bytes; the limit is {images.MAX_BYTES:,}"
            )
        data = job.source.read()
        photo = dataclasses.replace(images.decode(data), digest=hashlib.sha256(data).hexdigest())
        source_md5 = md5(data)
    images.check_fits(photo, Path(job.target.name))
    return Task(job, photo, ours=ours, source_md5=source_md5)


def finish(work: Work[Job], overwrite: bool, records: Records) -> Outcome:
    """Write the picture, if there is one, and drop it; what became of the job."""
    try:
        return write(work, overwrite, records)
    finally:
        work.photo = None


def write(work: Work[Job], overwrite: bool, records: Records) -> Outcome:
    job, photo = work.job, work.photo
    ours, source_md5 = (work.ours, work.source_md5) if isinstance(work, Task) else (None, "")
    if work.done and ours is not None:
        return Outcome(job, None, (), work.seconds, True, (ours.height, ours.width), ours.result)
    if photo is None:
        return Outcome(job, work.error, (), work.seconds)
    height, width = photo.rgb.shape[:2]
    try:
        if error := taken(job.target, overwrite, ours, records):  # asked again: it may have appeared since
            return Outcome(job, error, (), work.seconds, size=(height, width))
        data, notes = images.encode(photo, images.KINDS[job.target.suffix.lower()])
        digest = hashlib.sha256(data).hexdigest()
        record = Record(
            job.target.path, photo.digest, records.settings, digest, height, width, source_md5, md5(data)
        )
        records.add(record, ours)
        job.target.write(data)
        return Outcome(job, None, photo.notes + notes, work.seconds, size=(height, width), digest=digest)
    except MaximirError as problem:
        return Outcome(job, str(problem), (), work.seconds, size=(height, width))


def taken(target: Address, overwrite: bool, ours: Record | None, records: Records) -> str | None:
    """Why there cannot be a result at `target`, if something is there already that is not ours."""
    if overwrite or ours is not None or not target.exists():
        return None
    if not records.resume:
        return f"{target} exists; use --overwrite to replace it, or --resume to keep what is done"
    if records.look(target) is not None:  # another process has just written it
        return None
    return f"{target} exists, and is not what maximir made of it; use --overwrite to replace it"
