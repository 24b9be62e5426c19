"""Pipeline of images through a restorer: reading, computing and finishing overlap.

Reading and finishing (writing or scoring) have threads and a queue each, before and after computing. A queue
accepts another image while it holds less than WAITING_PHOTOS and WAITING_BYTES. Decoded pixels in memory are
therefore the image being computed, at most 2 · WAITING_BYTES, and two more images: of large ones, one read
ahead and one being finished.

Images are restored one at a time. In a batch, neighbours could change the last bit of a result.
"""

from __future__ import annotations

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
WAITING_BYTES = 64 * 2**20  # a photograph of 22 megapixels; a larger one waits alone

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(eq=False)
class Work(Generic[Job]):
    """A job on its way through the pipeline."""

    job: Job
    photo: Photo | None = None  # decoded, then restored; None if nothing is to be restored
    error: str | None = None
    crash: BaseException | None = None  # not caused by the file: raised when the work leaves the queue
    seconds: float = 0.0  # of computing

    @property
    def bytes(self) -> int:
        photo = self.photo  # once: the finisher's thread may drop it meanwhile
        return 0 if photo is None else photo.rgb.nbytes


def run(
    jobs: Sequence[Job],
    read: Callable[[Job], Work[Job]],
    restore: Callable[[Photo], Photo],
    finish: Callable[[Work[Job]], Result],
    *,
    finishers: int = 1,
    started: Callable[[Job], None] = lambda job: None,
) -> Generator[Result, None, None]:
    """Run the jobs; yield the results of `finish` in order, failures included.

    To stop early, close the generator: images being read or finished are completed, no others are started.

    Args:
        read: decodes the image, or returns its error. Runs in a thread, in the jobs' order.
        restore: restores one image.
        finish: takes the restored image, or the error. Runs in one of `finishers` threads; drops the image.
        started: called with each readable job when computing begins.

    Raises:
        Exception: anything but the `MaximirError` of one image, also from the threads.
    """
    pool = ThreadPoolExecutor(finishers, "maximir-finisher")
    finishing: deque[tuple[Work[Job], Future[Result]]] = deque()
    with closing(read_ahead(jobs, read)) as works:
        try:
            for work in works:
                while finishing and finishing[0][1].done():
                    yield finishing.popleft()[1].result()
                if work.photo is not None:
                    started(work.job)
                    restore_photo(work, restore)
                while is_full([waiting for waiting, _ in finishing]):
                    yield finishing.popleft()[1].result()
                finishing.append((work, pool.submit(finish, work)))
                del work  # or its pixels would stay until the next one is read
            while finishing:
                yield finishing.popleft()[1].result()
        finally:
            pool.shutdown(cancel_futures=True)


def reserve(jobs: Sequence[Job]) -> int:
    """Bytes to leave free for waiting images."""
    return 2 * WAITING_BYTES if len(jobs) > 1 else 0


def is_full(queue: Collection[Work[Job]]) -> bool:
    return len(queue) >= WAITING_PHOTOS or sum(work.bytes for work in queue) >= WAITING_BYTES


def read_ahead(jobs: Sequence[Job], read: Callable[[Job], Work[Job]]) -> Generator[Work[Job], None, None]:
    """Yield the jobs in order, read by a thread that runs ahead until its queue is full.

    The thread never blocks on a full queue: it returns, and each image that is taken restarts it. No thread
    is left hanging if the generator is dropped without closing.
    """
    remaining = iter(jobs)
    queue: deque[Work[Job]] = deque()
    changed = threading.Condition()

    def fill() -> None:
        while True:
            with changed:
                job = None if is_full(queue) else next(remaining, None)
            if job is None:
                return
            try:
                work = read(job)
            except MaximirError as problem:
                work = Work(job, error=str(problem))  # not the exception, which would keep the image alive
            except BaseException as crash:
                work = Work(job, crash=crash)
            with changed:
                queue.append(work)
                changed.notify()

    reader = ThreadPoolExecutor(1, "maximir-reader")
    try:
        reader.submit(fill)
        for _ in jobs:
            with changed:
                changed.wait_for(lambda: queue)
                work = queue.popleft()
            if work.crash is not None:
                raise work.crash
            reader.submit(fill)
            yield work
            del work
    finally:
        remaining = iter(())
        reader.shutdown()


def restore_photo(work: Work[Job], restore: Callable[[Photo], Photo]) -> None:
    assert work.photo is not None
    clock = time.monotonic()
    try:
        work.photo = restore(work.photo)
    except MaximirError as problem:
        work.photo, work.error = None, str(problem)
    work.seconds = time.monotonic() - clock
