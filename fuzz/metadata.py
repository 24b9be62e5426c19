"""Fuzz what splices EXIF, XMP, IPTC and TIFF fields into results: see README.md.

The input: one letter (e, x, p), then the block. A finding is any exception but a `MaximirError`, a result
whose pixels are not those that were written, EXIF that is not upright, or 15 seconds.
"""

import sys

import atheris

with atheris.instrument_imports(include=["maximir"]):
    from maximir import images
    from maximir.images.metadata import exif, iptc, xmp
import numpy as np

from maximir.errors import MaximirError

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
FIELDS = {b"e": "exif-data", b"x": "xmp-data", b"p": "iptc-data"}


def one(data: bytes) -> None:
    field = FIELDS.get(data[:1])
    if field is None:
        return
    block = data[1:]
    if field == "xmp-data":
        block = xmp.corrected(block, 6, 4, turned=True)[0]
    if field == "exif-data":
        if not exif.is_exif(block):
            return
        block = exif.restored(block, 6, 4)
        assert exif.orientation(block) == 1
    if field == "iptc-data":
        block = iptc.restored(block)
    photo = images.Photo(PIXELS, metadata={field: block})
    for kind in ("png", "jpeg", "tiff", "webp"):
        try:
            written, _ = images.encode(photo, kind)
        except MaximirError:
            continue
        back = images.decode(written)
        assert back.rgb.shape == PIXELS.shape, kind
        assert kind == "jpeg" or np.array_equal(back.rgb, PIXELS), kind


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], "-timeout=15", "-rss_limit_mb=2000", *sys.argv[1:]], one)
    atheris.Fuzz()
