"""Uploads as multipart/form-data: an image, perhaps others that belong to it, and short text fields.

Starlette's parser requires a file name, ignores `filename*` and has one message for every error. This parser
identifies fields by name, decodes file names in every form that clients are known to send, and refuses a part
as soon as its head has arrived.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.errors import MessageError
from email.header import decode_header, make_header
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import UploadFile

from maximir.files import reason
from maximir.service.refusal import Refusal
from maximir.service.spool import open_spooled

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILES = ("image", "mask", "restored")
TEXTS = ("task", "model", "format", "view", "id", "strength", "detail", "preset")
LONGEST_TEXT = 1024  # bytes
LONGEST_LINE = 16_384  # bytes of a line in a part's head: file names of some systems are long

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
EXTENDED = re.compile(
    r";\s*filename\*\s*=\s*(?:utf-8|iso-8859-1)'[^';]*'([^;\s]*)", re.IGNORECASE
)  # RFC 5987
ENCODED_WORDS = re.compile(r"(?:=\?[^?\s]+\?[bq]\?[^?\s]*\?=\s*)+", re.IGNORECASE)  # RFC 2047
PERCENT_ENCODED = re.compile(r"(?:[A-Za-z0-9_.~!'()*\[\]-]|%[0-9A-Fa-f]{2})+")  # the whole name
HTML = re.compile(r"%(?:22|0A|0D)", re.IGNORECASE)  # the only characters that browsers encode


class Upload(NamedTuple):
    """An uploaded file, its size in bytes, and its name, or ""."""

    file: BinaryIO
    size: int
    name: str = ""


@dataclass
class Form:
    """A parsed form. Its owner closes the files.

    Attributes:
        texts: non-empty texts by field name; browsers send missing fields as empty.
        files: the uploads by field name.
    """

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, Upload] = field(default_factory=dict)

    def close(self) -> None:
        for upload in self.files.values():
            upload.file.close()


async def read(content_type: str, pieces: AsyncIterator[bytes]) -> Form:
    """Read the form in a request's body; its files are stored on disk, or in memory if small.

    Raises:
        Refusal: the body is not a valid form, or there is no space to store it.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise Refusal(400, "send multipart/form-data with the fields image and task (or model)")
    if not options.get(b"boundary"):
        raise Refusal(400, "the Content-Type has no boundary: let your HTTP library write this header")
    reader = Reader()
    try:
        parser = MultipartParser(
            options[b"boundary"], reader.callbacks(), max_header_size=LONGEST_LINE, max_header_count=16
        )
        async for piece in pieces:
            parser.write(piece)
            await reader.store()
        if not reader.ended:
            raise Refusal(400, "the form is incomplete, or is not multipart/form-data")
        return await reader.form()
    except FormParserError as error:
        reader.close()
        raise Refusal(400, f"the form is not valid multipart/form-data ({error})") from error
    except OSError as error:
        reader.close()
        raise Refusal(503, f"the upload could not be stored ({reason(error)})", 60) from error
    except BaseException:  # includes a client that disconnects: close the files
        reader.close()
        raise


class Reader:
    """Collects the parts that python-multipart finds."""

    def __init__(self) -> None:
        self.texts: dict[str, bytearray] = {}
        self.uploads: dict[str, UploadFile] = {}
        self.pending: list[tuple[UploadFile, bytes]] = []  # bytes that are not stored yet
        self.head: dict[bytes, bytes] = {}  # headers of the current part
        self.label, self.value, self.part = bytearray(), bytearray(), ""
        self.ended = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.head.clear,
            "on_header_field": lambda data, start, end: self.label.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.extend(data[start:end]),
            "on_header_end": self.end_of_line,
            "on_headers_finished": self.end_of_head,
            "on_part_data": lambda data, start, end: self.take(data[start:end]),
            "on_end": self.end,
        }

    def end_of_line(self) -> None:
        self.head[bytes(self.label).lower()] = bytes(self.value).strip()
        self.label, self.value = bytearray(), bytearray()

    def end_of_head(self) -> None:
        """Start the part that its head describes. Raises Refusal if the part is not expected."""
        disposition = self.head.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        name = decoded(options.get(b"name", b""))
        if not name:
            raise Refusal(400, "a part of the form has no name")
        if name not in FILES and name not in TEXTS:
            raise Refusal(400, f"unknown field {name[:40]!r}: send only {', '.join((*FILES, *TEXTS))}")
        if name in self.texts or name in self.uploads:
            raise Refusal(400, f"the field {name} was sent twice")
        encoding = decoded(self.head.get(b"content-transfer-encoding", b"")).lower()
        if encoding not in ("", "binary", "8bit", "7bit"):
            raise Refusal(400, f"the field {name} is encoded ({encoding[:40]}): send the bytes unencoded")
        filename = extended_name(decoded(disposition))
        if filename is None and b"filename" in options:
            filename = plain_name(decoded(options[b"filename"]))
        if name not in FILES and filename:
            raise Refusal(400, f"the field {name} must be text, not a file")
        self.part = name
        if name in FILES:
            self.uploads[name] = UploadFile(open_spooled(), size=0, filename=filename)
        else:
            self.texts[name] = bytearray()

    def take(self, data: bytes) -> None:
        if self.part in FILES:
            self.pending.append((self.uploads[self.part], data))
            return
        self.texts[self.part] += data
        if len(self.texts[self.part]) > LONGEST_TEXT:
            raise Refusal(400, f"the field {self.part} is longer than {LONGEST_TEXT:,} bytes")

    def end(self) -> None:
        self.ended = True

    async def store(self) -> None:
        pending, self.pending = self.pending, []
        for upload, pieces in itertools.groupby(pending, key=lambda each: each[0]):
            await upload.write(b"".join(data for _, data in pieces))

    async def form(self) -> Form:
        form = Form({name: decoded(bytes(text)) for name, text in self.texts.items() if text})
        for name, upload in self.uploads.items():
            size = upload.size or 0
            if not (size or upload.filename):  # browsers send this if no file was chosen
                upload.file.close()
                continue
            await upload.seek(0)
            if upload.filename is None and size <= LONGEST_TEXT and is_text(await upload.read()):
                raise Refusal(
                    400, f"the field {name} must be the file itself; paths and addresses are not opened"
                )
            await upload.seek(0)
            form.files[name] = Upload(upload.file, size, upload.filename or "")
        return form

    def close(self) -> None:
        for upload in self.uploads.values():
            upload.file.close()


def decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:  # old clients send Latin-1, where every byte is a character
        return text.decode("latin-1")


def is_text(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def extended_name(disposition: str) -> str | None:
    """Return the RFC 5987 file name (filename*=utf-8''f%C3%BC.png), which has priority; or None."""
    found = EXTENDED.search(QUOTED.sub('""', disposition))
    return None if found is None else decoded(unquote_to_bytes(found[1]))


def plain_name(name: str) -> str:
    """Return a file name without the encoding that clients apply to fit it into a header.

    Browsers encode only quotes and line ends, aiohttp everything except letters and digits. Mail libraries
    and older libraries of .NET and Java write encoded words.
    """
    if ENCODED_WORDS.fullmatch(name):
        try:
            return str(make_header(decode_header(name)))
        except (LookupError, ValueError, MessageError):
            return name
    if "%" in name and PERCENT_ENCODED.fullmatch(name):
        try:
            return unquote(name, errors="strict")
        except UnicodeError:
            return name
    return HTML.sub(lambda found: unquote(found[0]), name)
