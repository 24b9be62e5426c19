"""Fuzz `images.decode`, and `images.encode` of what it takes: see README.md.

A finding is any exception but a `MaximirError`, a crash of a library, more than 2 GB, or 15 seconds.
"""

import os
import sys

import atheris

with atheris.instrument_imports(include=["maximir"]):
    from maximir import images
from maximir.errors import MaximirError, TooLarge

MOST_PIXELS = 200_000  # the way is the same for larger ones, but slow
KINDS = tuple(dict.fromkeys(images.KINDS.values()))


def admit(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise TooLarge("for a fuzzer")


def one(data: bytes) -> None:
    try:
        photo = images.decode(data, admit)
    except MaximirError:
        return
    height, width, channels = photo.rgb.shape
    assert channels == 3 and height * width > 0 and str(photo.rgb.dtype) in ("uint8", "uint16")
    assert photo.alpha is None or photo.alpha.shape == (height, width)
    try:
        written, _ = images.encode(photo, KINDS[sum(data[-9:]) % len(KINDS)])
        again = images.decode(written)
    except MaximirError:
        return
    assert again.rgb.shape == photo.rgb.shape


if __name__ == "__main__":
    # libvips takes a thread for each processor, and keeps what it did: neither helps here.
    os.environ |= {"VIPS_CONCURRENCY": "1"}
    atheris.Setup([sys.argv[0], "-timeout=15", "-rss_limit_mb=2000", *sys.argv[1:]], one)
    atheris.Fuzz()
