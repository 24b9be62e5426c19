"""The routes of the service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

import maximir
from maximir import __version__
from maximir.files import printable
from maximir.models import catalogue, choice
from maximir.restoring.options import VIEWS
from maximir.restoring.presets import known as known_presets
from maximir.service import webui
from maximir.service.intake import FORMATS, ID, KIND_OF, read_form, read_job, unless_gone
from maximir.service.jobs import Result
from maximir.service.limits import exchange_of
from maximir.service.metrics import Metrics
from maximir.service.queue import Queue
from maximir.service.refusal import Refusal, problem, sentence
from maximir.service.settings import Settings

PAGE = Path(maximir.__file__).parent / "page"  # shared with the page without a server
LONGEST_NAME = 80  # characters kept of a file's name
CHUNK = 65_536  # bytes
ERRORS = {
    400: "The request is malformed.",
    401: "The token is missing or wrong.",
    403: "Host or Origin is not allowed.",
    408: "The upload was too slow.",
    413: "Too many bytes or pixels.",
    415: "Not an image, an unsupported kind of image, or a compressed form.",
    422: "A damaged image or mask; an unknown task, model, preset, format or view; a bad id.",
    429: "The queue is full; see Retry-After.",
    503: "The service is stopping, or no worker process is available; see Retry-After.",
    504: "Processing took too long.",
}


class Problem(BaseModel):
    """An error reply."""

    error: str = Field(description="One sentence.", examples=["The file is truncated or damaged."])


class JobProgress(BaseModel):
    state: Literal["waiting", "working", "done", "failed"]
    ahead: int = Field(description="Images ahead of this one.")
    fraction: float = Field(ge=0, le=1, description="Fraction of the computation that is done.")
    seconds_left: float | None = Field(
        description="Estimated seconds left; null if there is no estimate yet."
    )


class Model(BaseModel):
    name: str
    tasks: list[str]
    default: bool = Field(description="True for the model that its task selects by default.")
    origin: Literal["box", "authors", "yours"]
    description: str
    licence: str
    parameters: int | None
    stages: int | None
    data: str = Field(description="Training data.")
    training: str = Field(description="Training time and hardware.")
    limits: str = Field(description="Known limits.")
    results: str = Field(description="PSNR (dB), input → output, on images not used for training.")
    published: str = Field(description="PSNR (dB) / SSIM published by the authors.")


class PresetFacts(BaseModel):
    name: str
    title: str
    task: str | None = Field(description="A task or a chain; null if the preset names a model.")
    model: str | None
    strength: float = Field(ge=0, le=1)
    detail: float = Field(ge=0, le=1)


class Health(BaseModel):
    status: Literal["ok", "draining", "no worker"]


class Alive(BaseModel):
    status: Literal["alive"]


class Restored(Response):
    """A restored image on its way to the client."""

    media_type = "image/*"

    def __init__(self, result: Result, name: str, queue: Queue) -> None:
        self.result, self.queue, self.background = result, queue, None
        self.status_code = 200
        headers = {
            "content-type": f"image/{result.kind}",
            "content-length": str(result.size),
            "content-disposition": disposition(name),
            "x-maximir-seconds": f"{result.seconds:.3f}",
        }
        if result.precision:  # not of what was only blended
            headers["x-maximir-precision"] = result.precision
        if result.notes:
            notes = printable("; ".join(result.notes))
            headers["x-maximir-notes"] = notes.encode("ascii", "backslashreplace").decode()
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.queue.sending(), self.result.file as file:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            left = self.result.size
            while chunk := file.read(CHUNK):
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})


def make_app(queue: Queue, settings: Settings, metrics: Metrics) -> FastAPI:
    """Return the application, without the limits in front of it (`limits.Guard`).

    Raises:
        UsageError: the user's file of presets is invalid.
    """
    presets = known_presets()
    app = FastAPI(
        title="maximir",
        version=__version__,
        description="Restores photographs: noise, blur, rain, haze, darkness.",
        license_info={"name": "Apache-2.0"},
        docs_url=None,  # FastAPI's pages load code from other servers
        redoc_url=None,
        redirect_slashes=False,
    )

    @app.post(
        "/v1/restore", response_class=Response, openapi_extra=upload_schema(), responses=restore_replies()
    )
    async def restore(request: Request) -> Response:
        """Restore one image."""
        with queue.place():
            form = await read_form(request)
            try:
                job = read_job(form, settings, presets)
            except Refusal:
                form.close()
                raise
            name = form.files["image"].name
            exchange_of(request.scope).about = printable(f"{job.model}, {name[:LONGEST_NAME]}")
            result = await unless_gone(request, queue, job)
        return Restored(result, result_name(name, job.tasks or "restored", result.kind), queue)

    @app.get("/v1/progress/{id}", responses=problems(401, 403, 404))
    async def progress(id: Annotated[str, InPath(description="The id sent with the image.")]) -> JobProgress:
        """Return an image's progress, from the end of its upload until a minute after the reply."""
        known = queue.progress(id)
        if known is None:
            raise Refusal(404, "no image with this id is known")
        return JobProgress(**known._asdict())

    @app.get("/v1/models", responses=problems(401, 403))
    async def models() -> list[Model]:
        """List the models on this machine."""
        return known_models()

    @app.get("/v1/presets", responses=problems(401, 403))
    async def list_presets() -> list[PresetFacts]:
        """List the presets: named sets of options."""
        return [PresetFacts(**vars(preset)) for preset in presets.values()]

    @app.get("/healthz", responses={503: {"model": Health, "description": "Not serving."}})
    async def healthz() -> Health:
        """Report readiness: 200 if images can be restored now, otherwise 503."""
        status = queue.health()
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)  # type: ignore[return-value]

    @app.get("/livez")
    async def livez() -> Alive:
        """Report liveness: 200 as long as this process answers, even while it drains or has no worker."""
        return Alive(status="alive")

    @app.get("/metrics", response_class=Response, responses=problems(401, 403))
    async def metrics_text() -> Response:
        """Return the metrics in Prometheus' format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    if settings.webui:
        webui.add_routes(app, queue, settings, presets)

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/static", StaticFiles(directory=PAGE, packages=[("maximir.service", "page")]), "static")
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, refused_by_framework)
    app.add_exception_handler(Exception, failed)
    return app


# The reply.


def result_name(name: str, task: str, kind: str) -> str:
    """Return a safe file name on any system: `../holiday.JPG` → `holiday-denoise.jpg`."""
    stem = re.split(r"[\\/]", name)[-1].rpartition(".")
    kept = "".join(c for c in (stem[0] or stem[2]) if c.isprintable() and c not in '<>:"|?*;')
    return f"{kept.strip(' .')[:LONGEST_NAME] or 'image'}-{task}.{FORMATS.get(kind, kind)}"


def disposition(name: str) -> str:
    """Return Content-Disposition: an ASCII name without % for old clients, then the exact name."""
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace("%", "_")
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{exact}'


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(problem(error.sentence, request.url.path), error.status, error.headers)


async def refused_by_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "nothing is at this address", 405: "this address does not support this method"}
    text = words.get(error.status_code, error.detail)
    return JSONResponse(problem(sentence(text), request.url.path), error.status_code, error.headers)


async def failed(request: Request, error: Exception) -> Response:
    return JSONResponse(problem("Internal server error; see the server's log.", request.url.path), 500)


# The catalogue and the API's description.


def known_models() -> list[Model]:
    """List the models that can be used now; the user may fetch more while the service runs."""
    known = [facts for card in choice.available().values() if (facts := card.facts())["bytes"] is not None]
    defaults = {task: choice.for_task(task).name for task in {facts["task"] for facts in known} - {""}}
    return [
        Model(
            **facts,
            tasks=[facts["task"]] if facts["task"] else [],
            default=defaults.get(facts["task"]) == facts["name"],
            data=facts["trained_on"],
            results=facts["measured"],
        )
        for facts in known
    ]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {s: {"model": Problem, "description": ERRORS.get(s, "Not found.")} for s in statuses}


def restore_replies() -> dict[int | str, dict[str, Any]]:
    image = {f"image/{kind}": {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS}
    text = {"schema": {"type": "string"}}
    headers = {
        "Content-Disposition": text | {"description": "Suggested file name."},
        "X-Maximir-Seconds": text | {"description": "Seconds of computation."},
        "X-Maximir-Precision": text
        | {"description": "Precision of the computation: fp32 or bf16; missing with `restored`."},
        "X-Maximir-Notes": text
        | {"description": "Notes separated by '; ', such as what the format could not store."},
    }
    return {200: {"description": "The restored image.", "content": image, "headers": headers}} | problems(
        *ERRORS
    )


def fraction_schema(description: str) -> dict[str, Any]:
    number = {"type": "number", "minimum": 0, "maximum": 1}
    return {"anyOf": [number, {"const": ""}], "description": description}


def upload_schema() -> dict[str, Any]:
    properties = {
        "image": {"type": "string", "format": "binary"},
        "task": {
            "type": "string",
            "description": f"One of {', '.join(catalogue.TASKS)}, auto; or several in order: "
            "denoise,enhance. A link may have a strength: denoise:0.8,enhance.",
        },
        "strength": fraction_schema("0: the image unchanged. 1 (default): the restored image."),
        "detail": fraction_schema("Part of the image's fine texture that comes back; default: 0."),
        "mask": {
            "type": "string",
            "format": "binary",
            "description": "An image that scales exactly: white is restored, grey partly, black not.",
        },
        "restored": {
            "type": "string",
            "format": "binary",
            "description": "An earlier result for this image, at strength 1: it is only blended.",
        },
        "model": {
            "type": "string",
            "description": "A model of /v1/models instead of the task's default; makes task optional.",
        },
        "preset": {
            "type": "string",
            "description": "A preset of /v1/presets; makes task optional. Other fields replace what it says.",
        },
        "format": {
            "type": "string",
            "enum": [*sorted({*FORMATS, *KIND_OF}), ""],
            "description": "Default: the upload's format, or PNG if that cannot be written.",
        },
        "view": {
            "type": "string",
            "enum": [*VIEWS, ""],
            "description": "exact: restore the image whole. auto (default): use views for large images.",
        },
        "id": {
            "type": "string",
            "pattern": f"^({ID.pattern})?$",
            "description": "An id of your choice, to ask for progress.",
        },
    }
    # Browsers send empty fields, so these count as missing.
    others = [{"required": [name], "properties": {name: {"minLength": 1}}} for name in ("model", "preset")]
    either = [{"required": ["task"]}, *others]
    schema = {"type": "object", "required": ["image"], "anyOf": either, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
