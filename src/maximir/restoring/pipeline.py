"""Images through a restorer, one after the other: reading, computing and what comes after overlap.

Reading and finishing have threads, and a line of images each: before computing, those that wait for it;
behind it, those that wait to be written or scored. One more enters a line as long as it holds less than
WAITING_PHOTOS and WAITING_BYTES. So the decoded pixels in memory are what is in work and at most
2 · WAITING_BYTES and two images: of large ones, one read ahead and one being finished.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from maximir.errors import MaximirError

if TYPE_CHECKING:
    from maximir.images import Photo

WAITING_PHOTOS = 64
WAITING_BYTES = 64 * 2**20  # a photograph of 22 megapixels: one larger waits alone

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(eq=False)
class Work(Generic[Job]):
    """A job on its way."""

    job: Job
    photo: Photo | None = None  # decoded, then restored; none after a failure or once finished
    error: str | None = None
    crash: BaseException | None = None  # not the file's fault: raised where it is taken from the line
    seconds: float = 0.0  # of computing
    done: bool = False  # before: nothing is to be computed, unless for its neighbours

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width."""
        return None if self.photo is None else self.photo.rgb.shape[:2]

    def load(self) -> None:
        """Get the photograph of what is done, if that is still possible."""

    @property
    def bytes(self) -> int:
        photo = self.photo  # once: the finisher's thread may drop it meanwhile
        return 0 if photo is None else photo.rgb.nbytes


Restore = Callable[[Sequence["Photo"]], Sequence["Photo"]]


def run(
    jobs: Sequence[Job],
    read: Callable[[Job], Work[Job]],
    restore: Restore,
    finish: Callable[[Work[Job]], Result],
    *,
    batch_size: Callable[[int, int], int],
    finishers: int = 1,
    started: Callable[[Job], None] = lambda job: None,
) -> Generator[Result, None, None]:
    """Do the jobs; each yields what `finish` says of it, good or bad, in their order.

    Neighbours of equal size are restored together where `batch_size` says so; some may be done already: they
    are restored again then, because another batch could give other bits. To stop early, close the
    generator: what is being read or finished is finished, nothing else is begun.

    Args:
        read: gives the image, or says what is wrong with it. In a thread, in the jobs' order.
        restore: images of one size → the restored ones.
        finish: takes the restored image, or the error. In one of `finishers` threads; drops the image.
        batch_size: how many images of a height and width are best restored together.
        started: called with each job whose image could be read, when computing begins.

    Raises:
        Exception: anything but the `MaximirError` of one image, also from the threads.
    """
    pool = ThreadPoolExecutor(finishers, "maximir-finisher")
    finishing: deque[tuple[Work[Job], Future[Result]]] = deque()
    with closing(read_ahead(jobs, read)) as works:
        try:
            for size, alike in itertools.groupby(works, key=lambda work: work.size):
                most = 1 if size is None else batch_size(*size)
                # Waits for the next ones, rather than take what is there: the same folder, the same bits.
                while together := list(itertools.islice(alike, most)):
                    while finishing and finishing[0][1].done():
                        yield finishing.popleft()[1].result()
                    if size is not None and not all(work.done for work in together):
                        for work in together:
                            work.load() if work.done else started(work.job)
                        restore_together(restore, [work for work in together if work.photo is not None])
                    for work in together:
                        while is_full([work for work, _ in finishing]):
                            yield finishing.popleft()[1].result()
                        finishing.append((work, pool.submit(finish, work)))
            while finishing:
                yield finishing.popleft()[1].result()
        finally:
            pool.shutdown(cancel_futures=True)


def alone(height: int, width: int) -> int:
    """The `batch_size` where nothing is gained by restoring images together."""
    return 1


def reserve(jobs: Sequence[Job]) -> int:
    """Bytes that waiting images may take, for who plans memory."""
    return 2 * WAITING_BYTES if len(jobs) > 1 else 0


def is_full(line: Collection[Work[Job]]) -> bool:
    return len(line) >= WAITING_PHOTOS or sum(work.bytes for work in line) >= WAITING_BYTES


def read_ahead(jobs: Sequence[Job], read: Callable[[Job], Work[Job]]) -> Generator[Work[Job], None, None]:
    """The jobs in their order, read by a thread that runs ahead until its line is full.

    The thread never waits for room: it pauses, and each image that is taken sets it going again. So no
    thread is left hanging when the generator is forgotten instead of closed.
    """
    left = iter(jobs)
    line: deque[Work[Job]] = deque()
    changed = threading.Condition()

    def fill() -> None:
        while True:
            with changed:
                job = None if is_full(line) else next(left, None)
            if job is None:
                return
            try:
                work = read(job)
            except MaximirError as problem:
                work = Work(job, error=str(problem))  # not the exception, which would keep the image alive
            except BaseException as crash:
                work = Work(job, crash=crash)
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


def restore_together(restore: Restore, works: Sequence[Work[Job]]) -> None:
    """Restore images of one size; if they fail together, each alone, so that the right one is named."""
    clock, error = time.monotonic(), None
    restored: Sequence[Photo] = ()
    try:
        restored = restore([work.photo for work in works if work.photo is not None])
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
            restore_together(restore, [work])
