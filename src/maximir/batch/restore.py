"""Restore planned images: failures do not stop the others, and finished images are skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maximir import images
from maximir.batch import pipeline
from maximir.batch.in_place import kept
from maximir.batch.journal import Entry, Journal, settings_of
from maximir.batch.outcome import Outcome
from maximir.batch.pipeline import Work
from maximir.batch.plan import Job, Plan, largest_file, plan
from maximir.errors import MaximirError
from maximir.files import disk_is_full
from maximir.restoring.options import Progress, silent
from maximir.storage import Address

if TYPE_CHECKING:  # torch takes a second to import; errors in a request are reported before
    import numpy as np

    from maximir.restoring.base import ImageRestorer
    from maximir.restoring.blending import Blend, Mask

LOOKERS = 16  # threads
SMALL = 4 * 2**20  # bytes in a store that are read at once: a request for the first ones takes as long


def restore_files(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    restorer: ImageRestorer | str | os.PathLike[str],
    *,
    mask: Mask | None = None,
    resume: bool = False,
    overwrite: bool = False,
    shard: str | None = None,
) -> Generator[Outcome, None, None]:
    """Restore files and folders, as `maximir restore` does.

        for outcome in restore_files("holiday", "restored", "denoise", resume=True):
            print(outcome.job.source, outcome.error or "restored")

    Results keep name, format, bit depth, metadata and place in the folder. Each outcome is yielded when
    its image is written, or has failed; to stop early, close the generator.

    Args:
        inputs: images and folders, as paths or addresses of any storage that fsspec knows ("s3://bucket/in").
        output: a folder or an address for the results; or a file, for one image.
        restorer: a `Restorer`, `Chain` or `AutoRestorer`; or a task, a model's name, a file of weights,
            "denoise,enhance", or "auto".
        mask: what to restore in each image: white wholly, grey partly. See `Restorer`.
        resume: continue a stopped run: keep results that belong to the same images and settings.
        overwrite: replace results that exist.
        shard: "i/n": only part i of n; implies `resume`.

    Raises:
        UsageError: the arguments contradict each other, or `output` is not writable.
        MaximirError: the model cannot be used.
    """
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    planned = plan(several, output, shard=shard)
    shares = None
    if mask is not None:
        from maximir.restoring.blending import prepare_mask

        shares = prepare_mask(mask)
    if isinstance(restorer, str | os.PathLike):
        from maximir.restoring.opening import open_restorer

        restorer = open_restorer(os.fspath(restorer))
    return restore(planned, restorer, mask=shares, resume=resume or shard is not None, overwrite=overwrite)


def restore(
    planned: Plan,
    restorer: ImageRestorer,
    *,
    mask: np.ndarray | None = None,
    resume: bool = False,
    overwrite: bool = False,
    started: Callable[[Job], None] = lambda job: None,
    progress: Progress = silent,
) -> Generator[Outcome, None, None]:
    """Restore the planned images; yield their outcomes in order, failures included.

    Args:
        mask: from `prepare_mask`, for each image.
        started: called with each readable job when computing begins.
        progress: called with the finished fraction of that image, 0 … 1.

    Raises:
        UsageError: the output is not writable, or another run writes there.
        MaximirError: the journal cannot be read or written.
    """
    planned.output.check_writable()
    settings = settings_of(restorer, mask)

    def outcomes() -> Generator[Outcome, None, None]:
        with planned.open_journal(settings, resume=resume) as journal:
            yield from restore_jobs(
                planned.jobs,
                restorer,
                journal,
                mask=mask,
                overwrite=overwrite,
                max_bytes=restorer.options.max_bytes,
                started=started,
                progress=progress,
            )

    return outcomes()


def restore_jobs(
    jobs: Sequence[Job],
    restorer: ImageRestorer,
    journal: Journal,
    *,
    mask: np.ndarray | None = None,
    overwrite: bool = False,
    max_bytes: int | None = None,
    started: Callable[[Job], None] = lambda job: None,
    progress: Progress = silent,
) -> Generator[Outcome, None, None]:
    """Restore jobs of one output with its open journal: see `restore` and `pipeline.run`.

    Args:
        mask: from `prepare_mask`, for each image.
        max_bytes: the budget of memory: a larger file is not read. None: `images.MAX_BYTES`.
    """
    limit = largest_file(max_bytes)
    compute = functools.partial(restorer.restore_photo, progress=progress, reserve=pipeline.reserve(jobs))
    blend = None
    if mask is not None:
        from maximir.restoring.blending import Blend

        blend = Blend(restorer.options.strength, restorer.options.detail, mask)
        compute = functools.partial(compute, blend=blend)
    return pipeline.run(
        jobs,
        functools.partial(read, journal=journal, overwrite=overwrite, limit=limit, blend=blend),
        compute,
        functools.partial(finish, restorer, journal=journal, overwrite=overwrite),
        finishers=max((job.target.storage.writers for job in jobs), default=1),
        started=started,
    )


def find_unfinished(planned: Plan, restorer: ImageRestorer, mask: np.ndarray | None = None) -> Iterator[Job]:
    """Yield the jobs whose result is missing or outdated."""
    if not planned.has_journal():
        yield from planned.jobs
        return
    with planned.open_journal(settings_of(restorer, mask), resume=True) as journal:

        def is_done(job: Job) -> bool:
            entry = None if job.problem is not None else journal.look_up(job.target)
            return entry is not None and journal.is_done(entry, job.source)

        with ThreadPoolExecutor(LOOKERS, "maximir-looker") as pool:
            for job, done in zip(planned.jobs, pool.map(is_done, planned.jobs), strict=True):
                if not done:
                    yield job


@dataclass(eq=False)
class Task(Work[Job]):
    """An image in the pipeline.

    Attributes:
        earlier: the entry of an earlier run's result.
        done: that result is up to date.
        obstructed: another file is where the result should be.
        source_md5: MD5 of the source's content, if it came from a store, which may return it later.
    """

    earlier: Entry | None = None
    done: bool = False
    obstructed: bool = False
    source_md5: str = ""


def read(
    job: Job,
    *,
    journal: Journal,
    overwrite: bool,
    limit: int = images.MAX_BYTES,
    blend: Blend | None = None,
) -> Task:
    """Decode the image, unless its result exists already or cannot be written."""
    if job.problem is not None:
        return Task(job, error=job.problem)
    earlier = journal.find(job.target)
    if earlier is not None and journal.is_done(earlier, job.source):
        return Task(job, earlier=earlier, done=True)
    if not (overwrite or earlier is not None) and (error := obstacle(job.target, journal)):
        return Task(job, error=error, obstructed=True)
    data = read_image(job.source, limit)
    photo = dataclasses.replace(images.decode(data), digest=hashlib.sha256(data).hexdigest())
    images.check_fits(photo, Path(job.target.name))
    if blend is not None:
        blend.check_size(*photo.rgb.shape[:2])
    source_md5 = md5(data) if job.source.local is None else ""
    return Task(job, photo, earlier=earlier, source_md5=source_md5)


def read_image(source: Address, limit: int) -> bytes:
    """Read a file, if its first bytes are those of an image; of small ones in stores, all is asked for."""
    if source.item is None or not 0 < source.item.size <= SMALL:  # 0: some servers state no size
        images.check_start(source.read_start(images.START, limit))
    return source.read(limit=limit)


def finish(restorer: ImageRestorer, work: Work[Job], *, journal: Journal, overwrite: bool) -> Outcome:
    """Write the image, if there is one, and release it."""
    task = work if isinstance(work, Task) else Task(work.job, error=work.error)
    try:
        return write(restorer, task, journal, overwrite)
    finally:
        work.photo = None


def write(restorer: ImageRestorer, task: Task, journal: Journal, overwrite: bool) -> Outcome:
    job, photo, earlier = task.job, task.photo, task.earlier
    if task.done and earlier is not None:
        return Outcome(job, known=True, size=(earlier.height, earlier.width), digest=earlier.result)
    if photo is None:
        return Outcome(job, task.error, seconds=task.seconds, obstructed=task.obstructed)
    height, width = photo.rgb.shape[:2]
    failed = functools.partial(Outcome, job, seconds=task.seconds, size=(height, width))
    try:
        # Checked again: it may have appeared since, e.g. as another job's result where case is ignored.
        if not (overwrite or earlier is not None) and (error := obstacle(job.target, journal)):
            return failed(error, obstructed=True)
        data, notes = encode(photo, job.target)
        digest = hashlib.sha256(data).hexdigest()
        entry = Entry(
            job.target.path, photo.digest, journal.settings, digest, height, width, task.source_md5, md5(data)
        )
        journal.add(entry, earlier)
        job.target.write(data)
    except MaximirError as problem:
        return failed(str(problem), disk_full=disk_is_full(problem.__cause__))
    return Outcome(
        job,
        notes=photo.notes + notes,
        seconds=task.seconds,
        size=(height, width),
        digest=digest,
        precision=restorer.precision_for(photo.rgb.dtype),
        steps=photo.steps,
    )


def copy_times(job: Job) -> None:
    """Give the result the times of its source, where both are on disks and the system permits it."""
    if (source := job.source.local) is not None and (target := job.target.local) is not None:
        with contextlib.suppress(OSError):
            facts = (kept(source) if job.source.is_same_file(job.target) else source).stat()
            os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def encode(photo: images.Photo, target: Address) -> tuple[bytes, tuple[str, ...]]:
    """Encode the file at `target`; return its bytes and notes. Errors name the target."""
    try:
        return images.encode(photo, images.KINDS[target.suffix.lower()])
    except MaximirError as problem:
        raise MaximirError(f"{target}: {problem}") from None


def obstacle(target: Address, journal: Journal) -> str | None:
    """Return why no result can be written at `target`: a file that is no result is there. None if free."""
    if not target.exists():
        return None
    if not journal.resume:
        or_resume = ", or --resume to keep what is done" if journal.can_resume else ""
        return f"{target} exists; use --overwrite to replace it{or_resume}"
    if journal.look_up(target) is not None:  # another process has just written it
        return None
    return f"{target} exists, and is not what maximir made of it; move it away, or restore with --overwrite"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
