"""The part of AUTOMATIC1111's HTTP API that restores: our tasks are its upscalers, at scale 1.

Images travel in base64 within JSON. A request is stored like an upload; one at a time is decoded in memory. A
batch has one place in the queue, and its images are restored one after the other.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from maximir.files import printable, reason
from maximir.models import catalogue, choice
from maximir.restoring.links import AUTO
from maximir.restoring.presets import Preset
from maximir.service.form import Upload
from maximir.service.intake import make_job, unless_gone
from maximir.service.jobs import Result
from maximir.service.limits import exchange_of, too_large
from maximir.service.queue import Queue
from maximir.service.refusal import Refusal
from maximir.service.settings import Settings
from maximir.service.spool import IN_MEMORY, open_spooled

PATH = "/sdapi/v1"
KIND = "png"  # of results: 16 bits and transparency are kept
CHUNK = 48 * 1024  # bytes, a multiple of 3: pieces of base64 fit together
LONGEST_NAME = 80  # characters of an image's name in errors
# Answers to what clients ask first: maximir has nothing of these kinds.
NOTHING: dict[str, Any] = {
    "scripts": {"txt2img": [], "img2img": []},
    "options": {},
    "cmd-flags": {},
    "samplers": [],
    "sd-models": [],
    "face-restorers": [],
}
# Fields that would change more than the task does, and the values with which they do not.
NEUTRAL = {
    "resize_mode": (0,),
    "upscaling_resize": (1,),
    "gfpgan_visibility": (0,),
    "codeformer_visibility": (0,),
}


class ImproveRequest(NamedTuple):
    """A request: the upscaler's name, and the images with a name for errors."""

    upscaler: str
    images: list[tuple[str, Upload]]


class Images(Response):
    """Restored images on their way to the client, in base64 within JSON."""

    def __init__(self, results: Sequence[Result], queue: Queue, *, several: bool) -> None:
        self.results, self.queue, self.background, self.status_code = results, queue, None, 200
        notes = "; ".join(note for result in results for note in result.notes)
        info = json.dumps(f"<p>{html.escape(printable(notes))}</p>" if notes else "")
        self.start = f'{{"html_info": {info}, '.encode() + (b'"images": [' if several else b'"image": ')
        self.end = b"]}" if several else b"}"
        quoted = sum(4 * ((result.size + 2) // 3) + 2 for result in results)
        length = len(self.start) + quoted + len(results) - 1 + len(self.end)
        self.init_headers({"content-type": "application/json", "content-length": str(length)})

    def pieces(self) -> Iterator[bytes]:
        """Yield the reply in pieces."""
        yield self.start
        for number, result in enumerate(self.results):
            yield b',"' if number else b'"'
            while chunk := result.file.read(CHUNK):
                yield base64.b64encode(chunk)
            yield b'"'
        yield self.end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.queue.sending(), ExitStack() as files:
            for result in self.results:
                files.enter_context(result.file)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for piece in self.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def add_routes(app: FastAPI, queue: Queue, settings: Settings, presets: Mapping[str, Preset]) -> None:
    """Add this API to the application."""
    decoding = asyncio.Lock()  # one body at a time is in memory

    async def restore(request: Request, *, several: bool) -> Response:
        with queue.place(), ExitStack() as files:
            body = files.enter_context(await store(request))
            async with decoding:
                asked = await asyncio.to_thread(read_request, body, settings, several)
            files.callback(close, asked.images)
            wanted = find(asked.upscaler, presets)
            exchange_of(request.scope).about = printable(f"{asked.upscaler[:40]}, {len(asked.images)} images")
            with ExitStack() as results:
                done: list[Result] = []
                while asked.images:
                    name, image = asked.images[0]
                    try:
                        job = make_job(wanted, image, KIND)
                        asked.images.pop(0)  # from now on, the queue owns its file
                        result = await unless_gone(request, queue, job)
                    except Refusal as refusal:
                        raise named(refusal, name) from refusal
                    results.callback(result.file.close)
                    done.append(result)
                results.pop_all()  # the reply closes them
        return Images(done, queue, several=several)

    @app.post(f"{PATH}/extra-single-image", include_in_schema=False)
    async def extra_single_image(request: Request) -> Response:
        return await restore(request, several=False)

    @app.post(f"{PATH}/extra-batch-images", include_in_schema=False)
    async def extra_batch_images(request: Request) -> Response:
        return await restore(request, several=True)

    @app.get(f"{PATH}/upscalers", include_in_schema=False)
    async def upscalers() -> list[dict[str, Any]]:
        none = {"model_name": None, "model_path": None, "model_url": None}
        return [{"name": name, **none, "scale": 1} for name in offered(presets)]

    @app.get(f"{PATH}/progress", include_in_schema=False)
    async def progress() -> dict[str, Any]:
        job = next(queue.working(), None)
        left = None if job is None else queue.seconds((), [job])
        state = {"skipped": False, "interrupted": False, "job": "", "job_count": queue.taken, "job_no": 0}
        return {
            "progress": 0.0 if job is None else job.fraction,
            "eta_relative": left or 0.0,
            "state": state,
            "current_image": None,
            "textinfo": None,
        }

    for name, value in NOTHING.items():
        app.add_api_route(f"{PATH}/{name}", constant(value), include_in_schema=False)


def constant(value: Any) -> Callable[[], Any]:
    return lambda: value  # a default of the lambda would become a query parameter


def offered(presets: Mapping[str, Preset]) -> list[str]:
    """Return the names of the upscalers: auto, tasks, presets, models."""
    return list(dict.fromkeys([AUTO, *catalogue.TASKS, *presets, *choice.available()]))


def find(upscaler: str, presets: Mapping[str, Preset]) -> Preset:
    """Return what an upscaler's name means; a chain of tasks, too.

    Raises:
        Refusal: it is not offered.
    """
    if upscaler in choice.available():
        return Preset(model=upscaler)
    if upscaler.partition(",")[0].partition(":")[0] in (AUTO, *catalogue.TASKS):
        return Preset(task=upscaler)
    if upscaler in presets:
        return presets[upscaler]
    names = ", ".join(offered(presets))
    raise Refusal(422, f"unknown upscaler_1 {upscaler[:40]!r}: choose one of {names}")


def named(refusal: Refusal, name: str) -> Refusal:
    """Return a refusal that names its image, if there are several."""
    if not name:
        return refusal
    more = Refusal(refusal.status, f"image {name[:LONGEST_NAME]}: {refusal.sentence}")
    more.headers = refusal.headers
    return more


# The request.


async def store(request: Request) -> BinaryIO:
    """Return the request's body as an open file, in memory if small.

    Raises:
        Refusal: there is no space to store it.
    """
    file = open_spooled()
    try:
        async for piece in request.stream():
            if file.tell() + len(piece) > IN_MEMORY:
                await asyncio.to_thread(file.write, piece)
            else:
                file.write(piece)
        file.seek(0)
        return file
    except OSError as error:
        file.close()
        raise Refusal(503, f"the upload could not be stored ({reason(error)})", 60) from error
    except BaseException:
        file.close()
        raise


def read_request(body: BinaryIO, settings: Settings, several: bool) -> ImproveRequest:
    """Return the request in a body; the caller closes its images.

    Raises:
        Refusal: it is no valid request.
    """
    try:
        fields = json.loads(body.read())
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the body is not JSON") from error
    if not isinstance(fields, dict):
        raise Refusal(422, "the body must be an object with upscaler_1 and image")
    upscaler = fields.get("upscaler_1")
    if not isinstance(upscaler, str) or upscaler in ("", "None"):
        raise Refusal(422, f"the field upscaler_1 is missing: choose one of {PATH}/upscalers")
    for name, values in NEUTRAL.items():
        if name in fields and fields[name] not in values:
            raise Refusal(
                422,
                f"the field {name} must be {values[0]}: images are restored in their own size, not enlarged",
            )
    if fields.get("upscaler_2") not in (None, "", "None") and fields.get("extras_upscaler_2_visibility"):
        raise Refusal(422, "the field upscaler_2 is not supported: write several tasks as denoise,enhance")
    given = [("", fields.get("image"))] if not several else listed(fields.get("imageList"), settings.queue)
    images: list[tuple[str, Upload]] = []
    name = ""
    try:
        for name, text in given:
            images.append((name, spooled(decoded(text), name)))
            if sum(image.size for _, image in images) > settings.max_bytes:
                raise too_large(settings)
    except Refusal as refusal:
        close(images)
        raise named(refusal, name) from refusal
    except OSError as error:
        close(images)
        raise Refusal(503, f"the upload could not be stored ({reason(error)})", 60) from error
    return ImproveRequest(upscaler, images)


def spooled(data: bytes, name: str) -> Upload:
    file = open_spooled()
    try:
        file.write(data)
    except OSError:
        file.close()
        raise
    file.seek(0)
    return Upload(file, len(data), name)


def close(images: list[tuple[str, Upload]]) -> None:
    for _, image in images:
        image.file.close()


def listed(entries: object, most: int) -> list[tuple[str, object]]:
    """Return name and data of a batch's images. Raises Refusal if there are none or too many."""
    if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
        raise Refusal(422, "the field imageList must be a list of objects with data and name")
    if len(entries) > most:
        raise Refusal(413, f"{len(entries)} images are too many; this server accepts at most {most} at once")
    return [(str(each.get("name") or n), each.get("data")) for n, each in enumerate(entries, 1)]


def decoded(text: object) -> bytes:
    """Return the bytes of an image in base64, perhaps as a data URL. Raises Refusal if it is none."""
    if not isinstance(text, str) or not text:
        raise Refusal(422, "the image is missing: send it in base64")
    if text.startswith(("http://", "https://")):
        raise Refusal(422, "the image must be the file itself, in base64; addresses are not opened")
    if text.startswith("data:"):
        text = text[text.find(",") + 1 :]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:  # also characters beyond ASCII
        raise Refusal(422, "the image is not valid base64") from error
