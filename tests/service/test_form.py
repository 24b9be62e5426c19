"""Forms as clients write them, read without a server."""

import asyncio
import io

import pytest

from helpers.serving import form
from maximir.service import app
from maximir.service import form as forms
from maximir.service.refusal import Refusal

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
KIND = "multipart/form-data; boundary=edge"


def part(disposition: bytes, content=IMAGE, *more: bytes) -> bytes:
    lines = [b"--edge", b"Content-Disposition: form-data; " + disposition, *more, b"", content, b""]
    return b"\r\n".join(lines)


def read(body: bytes, kind=KIND, step=None):
    async def pieces():
        for start in range(0, len(body), step or len(body) or 1):
            yield body[start : start + (step or len(body))]

    return asyncio.run(forms.read(kind, pieces()))


def content(found) -> bytes:
    with found.files["image"].file as file:
        return file.read()


def name_in(disposition: bytes) -> str:
    found = read(part(disposition) + b"--edge--\r\n")
    assert content(found) == IMAGE and found.files["image"].size == len(IMAGE)
    return found.files["image"].name


@pytest.mark.parametrize("step", [None, 1, 7])
def test_a_form_in_whole_and_in_pieces(step):
    body, _ = form(("task", None, b"denoise"), ("image", "photo.png", IMAGE), ("format", None, b""))
    found = read(body, step=step)
    assert found.texts == {"task": "denoise"}  # what is empty was not filled in
    upload = found.files["image"]
    assert (upload.name, upload.size, content(found)) == ("photo.png", len(IMAGE), IMAGE)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('name="image"; filename="Füße 写.png"', "Füße 写.png"),
        (b'name="image"; filename="F\xfc\xdfe.png"', "Füße.png"),  # old clients: Latin-1
        # RFC 5987: urllib3's rfc2231, .NET, Java; it comes before the plain one, on either side of it
        ("name=image; filename*=UTF-8''F%C3%BC%C3%9Fe%20%E5%86%99.png", "Füße 写.png"),
        ("name=image; filename=F__e.png; filename*=utf-8''F%C3%BC%C3%9Fe.png", "Füße.png"),
        ("name=image; filename*=utf-8'en'F%C3%BC%C3%9Fe.png; filename=x", "Füße.png"),
        ("name=image; FileName* = iso-8859-1''F%FC%DFe.png", "Füße.png"),
        ("name=image; filename=a.png; filename*=klingon''b.png", "a.png"),
        ("name=image; filename=\"a; filename*=utf-8''evil.png\"", "a; filename*=utf-8''evil.png"),
        # aiohttp encodes everything, browsers, requests and httpx quotes alone
        ('name="image"; filename="%D1%84%D0%BE%D1%82%D0%BE%20%22%E5%86%99%22.png"', 'фото "写".png'),
        ('name="image"; filename="a %22b%22 100%.png"', 'a "b" 100%.png'),
        ('name="image"; filename="5%41 and 50%25 off.png"', "5%41 and 50%25 off.png"),  # is called so
        ('name="image"; filename="%FF%FE.png"', "%FF%FE.png"),  # no UTF-8
        # curl, Go, Ruby
        (r'name="image"; filename="a \"b\" \\c.png"', r'a "b" \c.png'),
        # mail libraries, older ones of .NET and Java: RFC 2047
        ('name="image"; filename="=?utf-8?B?RsO8w59lLnBuZw==?="', "Füße.png"),
        ('name="image"; filename="=?iso-8859-1?Q?F=FC=DFe=2Epng?="', "Füße.png"),
        ('name="image"; filename="=?utf-4?B?RsO8w59lLnBuZw==?="', "=?utf-4?B?RsO8w59lLnBuZw==?="),
        ('name="image"; filename="=?ut\xff\xfff-4?B?WnM=?="', "=?ut\xff\xfff-4?B?WnM=?="),  # by the fuzzer
        ('name="image"; filename="=?utf-8?B?x?="', "=?utf-8?B?x?="),
        ("name=image; filename=photo.png", "photo.png"),
        ('name="image"; filename="C:\\Users\\me\\cat.png"', "cat.png"),
        ('filename="a.png"; name="image"', "a.png"),
        ('name="image"; filename="' + 5000 * "x" + '.png"', 5000 * "x" + ".png"),
        ('name="image"; filename=""', ""),
        ('name="image"', ""),
    ],
)
def test_names_of_files_in_every_form(disposition, name):
    assert name_in(disposition if isinstance(disposition, bytes) else disposition.encode()) == name


@pytest.mark.parametrize("name", ["a%0d%0aX-Evil: 1.png", "%2e%2e%2f%2e%2e%2fpasswd.png", "a\0b\x1b[31m.png"])
def test_names_are_tame_after_they_were_decoded(name):
    result = app.result_name(forms.plain_name(name), "denoise", "png")
    assert result.isprintable() and not set(result) & set("/\\")
    assert app.disposition(result).isascii() and app.disposition(result).isprintable()


def test_a_percent_sign_stays_and_nobody_decodes_it():
    assert app.result_name("100%.png", "denoise", "png") == "100%-denoise.png"
    assert app.disposition("a%41.png") == "attachment; filename=\"a_41.png\"; filename*=UTF-8''a%2541.png"


@pytest.mark.parametrize("text", [b"http://127.0.0.1/a.png", b"/etc/passwd", "C:\\Füße.png".encode()])
def test_an_address_is_no_image(text):
    with pytest.raises(Refusal, match="addresses are not opened"):
        read(part(b'name="image"', text) + b"--edge--\r\n")
    assert content(read(part(b'name="image"; filename="a"', text) + b"--edge--\r\n")) == text


@pytest.mark.parametrize("disposition", [b'name="image"; filename=""', b'name="image"'])
def test_no_file_was_chosen(disposition):
    assert read(part(disposition, b"") + b"--edge--\r\n").files == {}


@pytest.mark.parametrize("step", [None, 7])
def test_several_files(step):
    body = part(b'name="mask"; filename="m"', b"mask" * 50) + part(b'name="restored"', b"\0" * 9)
    found = read(body + part(b'name="image"; filename="a"') + b"--edge--\r\n", step=step)
    sizes = {name: upload.size for name, upload in found.files.items()}
    assert sizes == {"mask": 200, "restored": 9, "image": len(IMAGE)}
    assert found.files["mask"].file.read() == b"mask" * 50
    found.close()
    assert all(upload.file.closed for upload in found.files.values())


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("multipart/form-data", b"x", "has no boundary"),
        ("multipart/mixed; boundary=edge", b"", "send multipart/form-data"),
        (KIND + 300 * "x", b"", "exceeds maximum"),
        (KIND, b"", "is incomplete"),
        (KIND, part(b'name="image"; filename="a"'), "is incomplete"),
        (KIND, part(b'name="image"; filename="a"')[:-200], "is incomplete"),
        (KIND, part(b""), "has no name"),
        (KIND, part(b'name="other"'), "unknown field 'other'"),
        (KIND, 2 * part(b'name="image"'), "sent twice"),
        (KIND, 2 * part(b'name="task"', b""), "sent twice"),
        (KIND, part(b'name="task"; filename="a"'), "task must be text"),
        (KIND, part(b'name="task"', 1025 * b"x"), "task is longer than 1,024 bytes"),
        (KIND, part(b'name="image"', IMAGE, b"Content-Transfer-Encoding: BASE64"), r"encoded \(base64\)"),
        (KIND, part(b'name="image"; filename="' + 20_000 * b"x" + b'"'), "header size exceeded"),
        (KIND, part(b'name="image"', IMAGE, *(20 * [b"A: b"])), "header count"),
    ],
)
def test_what_is_wrong_is_said_and_no_file_stays_open(kind, body, words, monkeypatch):
    opened = []

    class Watched(forms.UploadFile):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            opened.append(self)

    monkeypatch.setattr(forms, "UploadFile", Watched)
    with pytest.raises(Refusal, match=words) as caught:
        read(body, kind)
    assert caught.value.status == 400
    assert all(each.file.closed for each in opened)


def test_a_full_disk_is_said(monkeypatch):
    class Full(io.BytesIO):
        _rolled = False

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(forms, "open_spooled", Full)
    with pytest.raises(Refusal, match="could not be stored") as caught:
        read(part(b'name="image"; filename="a"') + b"--edge--\r\n")
    assert caught.value.status == 503
