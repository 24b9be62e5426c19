"""Sizes by headers: as the decoders see them, and nothing at all of what is broken."""

import io

import pytest

from helpers import malformed
from maximir import headers, images

ORIGINALS = malformed.originals()
UNKNOWN = {"jxl"}  # does not say it simply


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_size_is_that_of_the_picture(name):
    data = ORIGINALS[name]
    size = headers.size(io.BytesIO(data))
    if name.split()[0] in UNKNOWN:
        assert size is None
        return
    try:
        height, width = images.decode(data).rgb.shape[:2]
    except images.MaximirError:  # what is not supported has a size, too
        assert size == (40, 56)
        return
    assert size in ((height, width), (width, height))  # perhaps it was turned


def test_a_jpeg_whose_size_stands_far_behind():
    """Behind profiles, EXIF and previews of more than a reader would take at once; and fill bytes."""
    data = ORIGINALS["jpeg"]
    segment = b"\xff\xe2" + (60_000).to_bytes(2, "big") + bytes(59_998)
    assert headers.size(io.BytesIO(data[:2] + 5 * segment + b"\xff\xff" + data[2:])) == (40, 56)


def test_webp_of_all_kinds():
    from PIL import Image

    for options in ({}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}):
        buffer = io.BytesIO()
        Image.new("RGB", (300, 70)).save(buffer, "webp", **options)
        assert headers.size(buffer) == (70, 300)


@pytest.mark.parametrize("name", ORIGINALS)
def test_what_is_cut_off_or_damaged_raises_nothing(name):
    data = ORIGINALS[name]
    for end in range(0, min(len(data), 300)):
        headers.size(io.BytesIO(data[:end]))
    for at in range(min(len(data), 200)):
        headers.size(io.BytesIO(data[:at] + b"\xff" * 4 + data[at + 4 :]))


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_picture_has_no_size(data):
    assert headers.size(io.BytesIO(data)) is None
