"""Fuzz what reads forms and the heads of requests in the serving process: see README.md.

The input: a Content-Type, a line feed, a body, which comes in two pieces. A finding is any exception but a
`Refusal`, a file that stays open, a name that does not fit into a header, or 15 seconds.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import atheris

with atheris.instrument_imports(include=["maximir", "python_multipart", "email"]):
    from maximir.service import app, form, limits
from starlette.datastructures import UploadFile

from maximir.service.refusal import Refusal

opened: list[UploadFile] = []


class Watched(UploadFile):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        opened.append(self)


form.UploadFile = Watched  # type: ignore[misc]


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 3]
    yield body[len(body) // 3 :]


async def read(kind: str, body: bytes) -> tuple[form.Form, Refusal | None]:
    try:
        return await form.read(kind, pieces(body)), None
    except Refusal as refusal:
        return form.Form(), refusal


def one(data: bytes) -> None:
    first, _, body = data.partition(b"\n")
    kind = first.decode("latin-1")
    limits.same_place(kind, limits.host_name(kind), ())
    app.ID.fullmatch(kind)
    opened.clear()
    found, refusal = asyncio.run(read(kind, body))
    if refusal is not None:
        assert refusal.status == 400 and refusal.sentence.isprintable(), refusal.sentence
        assert all(each.file.closed for each in opened)
        return
    for upload in found.files.values():
        name = app.result_name(upload.name, "denoise", "png")
        assert name.isprintable() and not set(name) & set('/\\<>:"|?*'), name
        assert app.disposition(name).isascii()
        assert len(upload.file.read()) == upload.size
    found.close()
    assert all(each.file.closed for each in opened)


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], "-timeout=15", *sys.argv[1:]], one)
    atheris.Fuzz()
