"""The worker process: everything that touches pixels, torch or a decoder happens here.

It may crash, hang or be killed; the service then starts another. It has three threads: while one image is
computed, the next is decoded and the last one encoded. Messages to it (see `wire`), after the settings:

    {"job": 7, "model": "denoise-box", "kind": "png" or null, "view": "auto", "strength": 1, "detail": 0,
        "others": {"mask": 3000}} and the file, then the others: restore it; with "restored", only blend
    {"cancel": 7}                                        stop job 7

and from it:

    {"ready": "cpu, bf16"}                               or {"failed": "why", "usage": true} before it exits
    {"job": 7, "stage": "decoding"}                      then "waiting", "computing", "encoding"
    {"job": 7, "fraction": 0.25}                         of the computation
    {"job": 7, "done": "png", "seconds": 1.2, "precision": "bf16", "notes": […]} and the restored file
    {"job": 7, "failed": "why", "status": 422}           or {"job": 7, "cancelled": true}
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

from maximir.errors import MaximirError, TooLarge, UnsupportedImage, UsageError
from maximir.models import catalogue, choice
from maximir.restoring.links import parse_links, steps_in_text
from maximir.restoring.options import Options
from maximir.service import wire

if TYPE_CHECKING:
    from maximir.images import Photo
    from maximir.restoring.base import ImageRestorer
    from maximir.restoring.blending import Blend
    from maximir.restoring.restorer import Restorer

FIRST = catalogue.MODELS[0].name  # loaded at the start
MOST_MODELS = 8  # models kept in memory; one of the authors' takes up to 89 MB
SMALL_BYTES = 64 * 2**20  # decoded; larger images are in memory one at a time
PIXEL_BYTES = 8  # at most: 16-bit RGBA
PROGRESS_EVERY = 0.1  # seconds
OOM_SCORE = 500  # of 1000: out of memory, Linux kills this process rather than the service


class Cancelled(Exception):
    """The job was cancelled."""


@dataclass(eq=False)
class Order:
    """A job on its way through the worker."""

    number: int
    model: str
    kind: str | None
    view: str
    blend: Blend
    data: bytes
    others: dict[str, bytes]
    restored: Photo | None = None  # by an earlier job: only blended
    photo: Photo | None = None
    large: bool = False
    seconds: float = 0.0
    precision: str = ""


class Worker:
    """Decodes, restores and encodes images.

    Args:
        settings: from `Settings.for_worker`.
        replies: stream for the messages to the service.

    Raises:
        MaximirError: the device or the memory is not available.
    """

    def __init__(self, settings: wire.Message, replies: BinaryIO) -> None:
        from maximir import images
        from maximir.restoring import blending, chain, opening

        self.images = images
        self.blending, self.chain, self.opening = blending, chain, opening
        self.max_pixels = settings.pop("max_pixels")
        self.settings = settings
        self.restorers: dict[str, Restorer] = {}  # by model, least recently used first
        self.restorers[FIRST] = self.load(FIRST)  # at once, because it checks all settings
        self.replies, self.lock = replies, threading.Lock()
        self.present: set[int] = set()  # numbers of the jobs in this process
        self.cancelled: set[int] = set()
        self.sent, self.decoded, self.restored = (SimpleQueue[Order]() for _ in range(3))
        self.large = threading.Semaphore(1)
        self.told = 0.0

    def run(self) -> None:
        """Work until the process ends. The main thread computes."""
        for line, stage, work, then in (
            (self.sent, "decoding", self.decode, self.pass_on),
            (self.restored, "encoding", self.encode, self.forget),
        ):
            threading.Thread(target=self.keep_on, args=(line, stage, work, then), daemon=True).start()
        first = self.restorers[FIRST]
        self.tell({"ready": f"{first.device}, {first.precision_for('uint8')}"})
        self.keep_on(self.decoded, "computing", self.compute, self.restored.put)

    def keep_on(
        self,
        line: SimpleQueue[Order],
        stage: str,
        work: Callable[[Order], None],
        then: Callable[[Order], None],
    ) -> None:
        while True:
            order = line.get()
            if self.attempt(order, stage, work):
                then(order)
            else:
                self.forget(order)
            del order  # otherwise its pixels stay in memory until the next job arrives

    def attempt(self, order: Order, stage: str, work: Callable[[Order], None]) -> bool:
        """Run one stage of a job; report any error to the service and return False."""
        end: wire.Message
        try:
            self.check(order)
            self.tell({"job": order.number, "stage": stage})
            work(order)
            return True
        except Cancelled:
            end = {"cancelled": True}
        except MaximirError as error:
            end = {"failed": str(error), "status": status_of(error, order)}
        except MemoryError:
            end = {"failed": "there is not enough memory for this image", "status": 413}
        except Exception:
            traceback.print_exc()
            end = {"failed": "the worker failed on this image; see the server's log", "status": 503}
        self.tell({"job": order.number} | end)
        return False

    def check(self, order: Order) -> None:
        if order.number in self.cancelled:
            raise Cancelled

    def decode(self, order: Order) -> None:
        kind = order.kind or self.images.kind_for(order.data)
        admit = functools.partial(self.admit, order)
        order.photo = self.images.decode(order.data, admit)
        if (mask := order.others.pop("mask", None)) is not None:
            shares = self.blending.mask_of(self.decode_other("mask", mask, admit))
            order.blend = dataclasses.replace(order.blend, mask=self.blending.prepare_mask(shares))
        order.blend.check_size(*order.photo.rgb.shape[:2])
        if (restored := order.others.pop("restored", None)) is not None:
            order.restored = self.decode_other("restored image", restored, admit)
        order.data = b""
        order.kind = kind
        self.images.check_fits(order.photo, Path(f"image.{order.kind}"))  # before the computation

    def decode_other(self, what: str, data: bytes, admit: Callable[[int, int], None]) -> Photo:
        """Decode a file that belongs to the image; errors say which one it is."""
        try:
            return self.images.decode(data, admit)
        except MaximirError as error:
            raise type(error)(f"the {what}: {error}") from error

    def admit(self, order: Order, width: int, height: int) -> None:
        """Raise TooLarge for too many pixels; wait while another large photograph is in memory."""
        if width * height > self.max_pixels:
            raise TooLarge(f"{width}x{height} exceeds this server's limit of {self.max_pixels:,} pixels")
        if width * height * PIXEL_BYTES > SMALL_BYTES and not order.large:
            self.tell({"job": order.number, "stage": "waiting"})
            self.large.acquire()
            order.large = True
            self.check(order)
            self.tell({"job": order.number, "stage": "decoding"})

    def pass_on(self, order: Order) -> None:
        from maximir.restoring.padding import padded_size

        assert order.photo is not None
        height, width = order.photo.rgb.shape[:2]
        pixels = padded_size(height) * padded_size(width)
        self.tell({"job": order.number, "stage": "waiting", "pixels": pixels})
        self.decoded.put(order)

    def compute(self, order: Order) -> None:
        assert order.photo is not None
        start = time.perf_counter()
        if order.restored is not None:
            order.photo = self.blending.blend_photo(order.photo, order.restored, order.blend)
            order.restored, order.seconds = None, time.perf_counter() - start
            return
        restorer = self.restorer_of(order.model)
        start = time.perf_counter()
        try:
            order.photo = restorer.restore_photo(
                order.photo,
                progress=functools.partial(self.progress, order),
                reserve=3 * SMALL_BYTES,  # one being decoded, one waiting, one being encoded
                view=order.view,
                blend=order.blend,
            )
        except MaximirError as error:  # decoding succeeded, so the cause is memory
            raise TooLarge(str(error)) from error
        order.precision = restorer.precision_for(order.photo.rgb.dtype)
        order.seconds = time.perf_counter() - start

    def restorer_of(self, model: str) -> ImageRestorer:
        """Return the restorer of a model's name, of a chain, or of "auto"."""
        links, options = parse_links(model, choice.named), Options(**self.settings)
        return self.opening.restorer_of(links, options, lambda card, _: self.restorer(card.name))

    def load(self, model: str) -> Restorer:
        """Load the model of this name, which may be a task's, too."""
        return self.chain.load_restorer(choice.named(model), Options(**self.settings))

    def restorer(self, model: str) -> Restorer:
        """Return the loaded model; it may replace the least recently used one."""
        found = self.restorers.pop(model, None)
        if found is None:
            while len(self.restorers) >= MOST_MODELS:
                del self.restorers[next(iter(self.restorers))]
            try:
                found = self.load(model)
            except MaximirError as error:
                raise RuntimeError(f"the model {model} cannot be loaded") from error
        self.restorers[model] = found
        return found

    def progress(self, order: Order, fraction: float) -> None:
        self.check(order)
        if time.monotonic() - self.told >= PROGRESS_EVERY:
            self.told = time.monotonic()
            self.tell({"job": order.number, "fraction": round(fraction, 4)})

    def encode(self, order: Order) -> None:
        assert order.photo is not None and order.kind is not None
        data, notes = self.images.encode(order.photo, order.kind)
        notes = (*steps_in_text(order.photo.steps), *order.photo.notes, *notes)
        order.photo = None
        done = {"job": order.number, "done": order.kind, "seconds": order.seconds}
        self.tell(done | {"precision": order.precision, "notes": notes}, data)

    def forget(self, order: Order) -> None:
        order.photo, order.restored, order.data = None, None, b""
        order.others.clear()
        self.present.discard(order.number)
        self.cancelled.discard(order.number)
        if order.large:
            self.large.release()

    def tell(self, message: wire.Message, body: bytes = b"") -> None:
        try:
            with self.lock:
                wire.write(self.replies, message, body)
        except OSError:  # the service has ended
            os._exit(0)

    def listen(self, orders: BinaryIO) -> None:
        """Receive messages until the service closes the pipe or ends; then end this process."""
        try:
            while (received := wire.read(orders)) is not None:
                message, data = received
                if "cancel" in message:
                    self.cancelled.update(self.present & {message["cancel"]})
                else:
                    self.present.add(message["job"])
                    self.sent.put(self.order(message, data))
        except BaseException:  # e.g. out of memory: restart rather than ignore messages
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def order(self, message: wire.Message, data: bytes) -> Order:
        others: dict[str, bytes] = {}
        for name, size in reversed(message["others"].items()):
            data, others[name] = data[: len(data) - size], data[len(data) - size :]
        blend = self.blending.Blend(message["strength"], message["detail"])
        return Order(message["job"], message["model"], message["kind"], message["view"], blend, data, others)


def status_of(error: MaximirError, order: Order) -> int:
    """Return the HTTP status. After decoding, "unsupported" means the requested output format: 422."""
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, UnsupportedImage) and order.photo is None:
        return 415
    return 422


def private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return streams for messages that no library can read or write; prints go to standard error."""
    orders, replies = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return os.fdopen(orders, "rb"), os.fdopen(replies, "wb")


def main() -> None:
    # Terminals and some supervisors signal all processes; the service decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), "ascii")
    orders, replies = private_streams()
    received = wire.read(orders)
    if received is None:
        return
    try:
        worker = Worker(received[0], replies)
    except MaximirError as error:
        wire.write(replies, {"failed": str(error), "usage": isinstance(error, UsageError)})
        sys.exit(1)
    threading.Thread(target=worker.listen, args=(orders,), daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
