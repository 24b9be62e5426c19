"""Files keep what they have besides the picture, or a note names what is left out."""

import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from helpers.malformed import originals, pillow, smooth
from maximir.images import KINDS, decode, encode
from maximir.images.codecs import png, tiff
from maximir.images.codecs.png import chunk, chunks, with_chunks

FORMATS = ["png", "webp", "gif", "bmp", "avif", "heic plain", "jxl", "jxl of jpeg"]
PRIVATE = b"a private part " * 10


def file(name: str) -> bytes:
    if name.startswith(("heic", "jxl")):
        pytest.importorskip("pillow_heif" if name.startswith("heic") else "pillow_jxl")
    if name == "jxl":
        return pillow("JXL", smooth(), lossless=True, use_container=True)
    return originals()[name] if name in originals() else pillow(name.upper(), smooth())


def said(data: bytes) -> list[str]:
    return [note for note in decode(data).notes if "left out" in note]


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_behind_the_picture_are_said(name):
    data = file(name)
    assert said(data) == said(data + bytes(1000)) == []
    notes = said(data + b"\xee" * 1000)
    assert notes == ["1,000 bytes behind the picture left out"]


@pytest.mark.parametrize("name", ["avif", "heic plain", "jxl"])
def test_boxes_that_are_not_carried_are_said(name):
    def box(kind: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(PRIVATE), kind) + PRIVATE

    assert said(file(name) + box(b"free")) == []
    assert said(file(name) + box(b"mpvd")) == ["video left out"]
    assert said(file(name) + box(b"uuid") + box(b"sefd")) == ["other data of the file left out (uuid, sefd)"]


def test_chunks_of_a_webp_that_are_not_carried_are_said():
    data = pillow("WEBP", smooth(), lossless=True, exif=Image.Exif().tobytes())
    body = data[12:] + b"C2PA" + struct.pack("<I", len(PRIVATE)) + PRIVATE
    with_chunk = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    assert said(with_chunk) == ["other data of the file left out (C2PA)"]


TIME = chunk(b"tIME", struct.pack(">H5B", 2020, 1, 2, 3, 4, 5))
OFFSET = chunk(b"oFFs", struct.pack(">iiB", 3, 4, 0))
STAYS = {
    "tIME": TIME,
    "oFFs": OFFSET,
    "sCAL": chunk(b"sCAL", b"\x011\x001"),
    "sTER": chunk(b"sTER", b"\0"),
    "bKGD": chunk(b"bKGD", bytes(6)),
    "sBIT": chunk(b"sBIT", b"\x08\x08\x08"),
    "pHYs": chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0)),
    "prVt": chunk(b"prVt", PRIVATE),
}
GOES = {
    "prVT": chunk(b"prVT", PRIVATE),
    "sBIT": chunk(b"sBIT", b"\5\6\5"),
    "sPLT": chunk(b"sPLT", b"name\0\x08"),
    "pCAL": chunk(b"pCAL", b"name\0" + bytes(8) + b"\0\2m\x000\x001"),
}


@pytest.mark.parametrize("name", STAYS)
def test_chunks_that_stay(name):
    photo = decode(with_chunks(pillow("PNG", smooth()), STAYS[name]))
    data, notes = encode(photo, "png")
    assert photo.notes == notes == () and STAYS[name] in data
    assert encode(decode(data), "png")[0] == data
    for kind in sorted(set(KINDS.values()) - {"png"}):
        _, notes = encode(photo, kind)
        assert notes == (() if name == "sBIT" else (f"other data of the PNG left out ({name})",))


@pytest.mark.parametrize("name", GOES)
def test_chunks_that_go_are_said(name):
    photo = decode(with_chunks(pillow("PNG", smooth()), GOES[name]))
    assert photo.notes == (f"chunks of the PNG left out ({name})",)
    assert not any(kind == name.encode() for kind, _ in chunks(encode(photo, "png")[0]))


def test_chunks_that_do_not_fit_the_restored_picture_are_said():
    palette = pillow("PNG", Image.fromarray(smooth()).convert("P"))
    assert said(with_chunks(palette, b"")) == []
    at = palette.index(b"IDAT") - 4
    data = palette[:at] + chunk(b"bKGD", b"\0") + palette[at:]
    assert said(data) == ["chunks of the PNG left out (bKGD)"]
    keyed = pillow("PNG", smooth(), transparency=tuple(smooth()[3, 4].tolist()))
    assert said(with_chunks(keyed, STAYS["sBIT"])) == ["chunks of the PNG left out (sBIT)"]
    many = b"".join(chunk(b"prVt", bytes([i]) * 300_000) for i in range(5))
    photo = decode(with_chunks(pillow("PNG", smooth()), many))
    assert photo.notes == ("chunks of the PNG left out (prVt)",)
    assert len(photo.metadata["png-chunks"]) < png.MAX_TEXTS
    assert said(with_chunks(pillow("PNG", smooth()), chunk(b"caBX", PRIVATE))) == [png.CREDENTIALS_NOTE]


def test_the_mark_for_srgb_stays():
    mark = chunk(b"sRGB", b"\1")
    photo = decode(with_chunks(pillow("PNG", smooth()), mark))
    assert mark in encode(photo, "png")[0] and encode(photo, "tiff")[1] == ()


def with_field(tag: int, kind: int, value: object) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory.tagtype[tag] = kind
    directory[tag] = value
    return pillow("TIFF", smooth(), tiffinfo=directory)


LAYERS = b"Adobe Photoshop Document Data Block\0" + b"MIB8ryaL" + bytes(200)


@pytest.mark.parametrize(
    ("tag", "kind", "value", "name"),
    [
        (37724, 7, LAYERS, "layers"),
        (301, 3, tuple(range(256)), "transfer function"),
        (343, 1, b"path", "clipping path"),
        (281, 3, (200, 200, 200), "range of samples"),
        (263, 3, 2, "halftoning"),
        (532, 5, (16.0, 235.0, 16.0, 235.0, 16.0, 235.0), "reference black and white"),
    ],
)
def test_fields_of_a_tiff_that_are_lost_are_said(tag, kind, value, name):
    data = with_field(tag, kind, value)
    assert tag in tiff.LOST and tiff.LOST[tag] == name
    assert decode(data).notes == (f"{name} left out",)


def test_fields_that_say_nothing_are_not_said():
    for tag, value in ((281, (255, 255, 255)), (280, (0, 0, 0)), (263, 1)):
        assert decode(with_field(tag, 3, value)).notes == ()
    for kind in KINDS.values():
        assert said(encode(decode(pillow("PNG", smooth())), kind)[0]) == []


def test_every_field_of_the_layout_that_is_lost_is_in_the_layout():
    assert set(tiff.LOST) <= tiff.LAYOUT
    assert np.all([name == name.strip() for name in tiff.LOST.values()])
