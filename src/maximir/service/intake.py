"""From a request to a job: what the fields mean, and the wait for the result."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial

from starlette.requests import ClientDisconnect, Request

from maximir.errors import UsageError
from maximir.models import catalogue, choice
from maximir.models.cards import ModelCard
from maximir.restoring.links import AUTO, Link, in_text, parse_links
from maximir.restoring.options import VIEWS, Options, check_fraction
from maximir.restoring.presets import Preset, check_task
from maximir.service.form import TEXTS, Form, Upload, read
from maximir.service.jobs import Job, Result
from maximir.service.limits import too_large
from maximir.service.queue import Queue
from maximir.service.refusal import Refusal
from maximir.service.settings import Settings

FORMATS = {"png": "png", "jpeg": "jpg", "webp": "webp", "tiff": "tif", "avif": "avif"}  # kind -> suffix
KIND_OF = {suffix: kind for kind, suffix in FORMATS.items()}  # "jpg" is accepted for JPEG
ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


async def read_form(request: Request) -> Form:
    """Read the form in a request's body.

    Raises:
        Refusal: the body is not a valid form, or there is no space to store it.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "compressed forms are not supported: send the form without Content-Encoding")
    return await read(request.headers.get("content-type", ""), request.stream())


def read_job(form: Form, settings: Settings, presets: Mapping[str, Preset]) -> Job:
    """Return the job that a form requests.

    Raises:
        Refusal: a field is missing or invalid.
    """
    others = dict(form.files)
    if (image := others.pop("image", None)) is None:
        raise Refusal(400, "the field image is missing")
    task, model, kind, view, id, strength, detail, preset = map(form.texts.get, TEXTS)
    if preset is not None and preset not in presets:
        raise Refusal(422, f"unknown preset {preset[:40]!r}: choose one of {', '.join(presets)}")
    wanted = (Preset() if preset is None else presets[preset]).override(
        task, model, fraction("strength", strength), fraction("detail", detail)
    )
    kind = kind and KIND_OF.get(kind.lower(), kind.lower())
    if kind is not None and kind not in FORMATS:
        raise Refusal(422, f"unknown format {kind[:40]!r}: choose one of {', '.join(FORMATS)}")
    if view is not None and view not in VIEWS:
        raise Refusal(422, f"unknown view {view[:40]!r}: choose one of {', '.join(VIEWS)}")
    if id is not None and not ID.fullmatch(id):
        raise Refusal(422, "an id has 8 to 64 letters, digits, - or _")
    if sum(upload.size for upload in form.files.values()) > settings.max_bytes:
        raise too_large(settings)
    return make_job(wanted, image, kind, id, view or Options.view, others)


def make_job(
    wanted: Preset,
    image: Upload,
    kind: str | None,
    id: str | None = None,
    view: str = Options.view,
    others: dict[str, Upload] | None = None,
) -> Job:
    """Return the job of an image and the options for it.

    Raises:
        Refusal: no model matches the options.
    """
    links = choose(wanted.task, wanted.model)
    tasks = "-".join(link.model.task for link in links if link.model.task) if links else AUTO
    return Job(
        tasks if len(links) < 2 else "chain",
        in_text(links),
        kind,
        image.file,
        image.size,
        id,
        view,
        tasks,
        wanted.strength,
        wanted.detail,
        others or {},
    )


def fraction(name: str, text: str | None) -> float | None:
    """Return the number 0 … 1 that a field holds; None: it is missing. Raises Refusal for another text."""
    if text is None:
        return None
    try:
        value = float(text)
        check_fraction(name, value)
    except ValueError:
        raise Refusal(400, f"{name} must be a number from 0 to 1, not {text[:40]!r}") from None
    except UsageError as error:
        raise Refusal(400, str(error)) from error
    return value


def choose(task: str | None, model: str | None) -> tuple[Link, ...]:
    """Return the chain, mostly of one link, that the fields `task` and `model` select.

    Raises:
        Refusal: no model matches, or a model is for another task.
    """
    if task is None and model is None:
        tasks = ", ".join((AUTO, *catalogue.TASKS))
        raise Refusal(400, f"the field task is missing: choose one of {tasks}, or send model or preset")
    try:
        links = () if task is None else parse_links(task, partial(model_for, any_will_do=model is not None))
        if model is None:
            return links
        if task is not None and not links:
            raise Refusal(422, "auto chooses its models: leave out the field model")
        chosen = parse_links(model, model_named)
    except UsageError as error:
        raise Refusal(400, str(error)) from error
    if links and len(links) != len(chosen):
        raise Refusal(422, f"task has {len(links)} links, but model has {len(chosen)}")
    for wanted, link in zip(links, chosen if links else (), strict=True):
        if link.model.task not in (wanted.model.task, ""):
            raise Refusal(
                422, f"the model {link.model.name} is for {link.model.task}, not for {wanted.model.task}"
            )
    return chosen


def model_for(task: str, *, any_will_do: bool) -> ModelCard:
    """Return the default model of a task, or a card that stands for any. Raises Refusal if there is none."""
    try:
        stand_in = check_task(task)
        return stand_in if any_will_do else choice.for_task(task)
    except UsageError as error:
        raise Refusal(422, str(error)) from error


def model_named(name: str) -> ModelCard:
    here = choice.available()
    if name not in here:
        raise Refusal(422, f"unknown model {name[:40]!r}: choose one of {', '.join(here)}")
    return here[name]


async def unless_gone(request: Request, queue: Queue, job: Job) -> Result:
    """Return the job's result; cancel the job if the client disconnects.

    Raises:
        ClientDisconnect: the client disconnected first.
    """
    work = asyncio.ensure_future(queue.restore(job))
    gone = asyncio.ensure_future(request.receive())  # the body was read: only a disconnect can follow
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        gone.cancel()
