"""Camera raw files: a mosaic of sensor values as a minimal DNG."""

from __future__ import annotations

import struct

import numpy as np

BLACK, WHITE = 512, 16_383  # 14 bits
# Linear sRGB → XYZ (D65), and back: this camera's own colours are those of sRGB.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL = 1, 2, 3, 4, 5, 7, 10

Field = tuple[int, int, int, bytes]  # tag, type, number of values, values


def text(tag: int, value: str) -> Field:
    data = value.encode() + b"\0"
    return tag, ASCII, len(data), data


def numbers(tag: int, kind: int, *values: float) -> Field:
    """Fractions have a denominator of 10,000."""
    if kind in (RATIONAL, SRATIONAL):
        pairs = (part for value in values for part in (round(value * 10_000), 10_000))
        return (
            tag,
            kind,
            len(values),
            struct.pack(f"<{2 * len(values)}{'I' if kind == RATIONAL else 'i'}", *pairs),
        )
    return (
        tag,
        kind,
        len(values),
        struct.pack(f"<{len(values)}{'BHI'[(BYTE, SHORT, LONG).index(kind)]}", *values),
    )


def append(body: bytearray, fields: list[Field]) -> int:
    """Append a directory and its values; return its place."""
    body += bytes(len(body) % 2)
    start = len(body)
    at = start + 2 + 12 * len(fields) + 4
    table, values = struct.pack("<H", len(fields)), b""
    for tag, kind, count, value in sorted(fields):
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at + len(values))
        table += struct.pack("<HHI", tag, kind, count) + inline
        values += b"" if len(value) <= 4 else value + bytes(len(value) % 2)
    body += table + bytes(4) + values
    return start


def sensor_values(light: np.ndarray) -> np.ndarray:
    """Light on the sensor, 0 to 1, as 14-bit values above black; noise goes below it."""
    return np.clip(np.rint(light * (WHITE - BLACK)) + BLACK, 0, WHITE).astype(np.uint16)


def dng(
    mosaic: np.ndarray,
    *,
    neutral: tuple[float, float, float] | None = (1, 1, 1),
    orientation: int = 1,
    exif: list[Field] | None = None,
    more: list[Field] | None = None,
    size: tuple[int, int] | None = None,
    to_camera: np.ndarray | None = None,
) -> bytes:
    """A DNG of `mosaic`, uint16 [H, W], with red at the upper left.

    Args:
        neutral: the sensor's response to grey (the white balance is its inverse); None: not stated.
        exif, more: fields of EXIF and of the first directory.
        size: height and width to state instead.
        to_camera: 3 × 3, linear sRGB → the sensor's colours before white balance; None: the same.
    """
    from_xyz, to_camera = np.linalg.inv(TO_XYZ), np.eye(3) if to_camera is None else to_camera
    height, width = size or mosaic.shape
    body = bytearray(b"II*\0" + bytes(4))
    strip = len(body)
    body += mosaic.astype("<u2").tobytes()
    below = append(body, [numbers(33434, RATIONAL, 0.01), numbers(34855, SHORT, 3200), *(exif or [])])
    white_balance = [] if neutral is None else [numbers(50728, RATIONAL, *neutral)]
    fields = [
        *(numbers(254, LONG, 0), numbers(256, LONG, width), numbers(257, LONG, height)),
        *(numbers(258, SHORT, 16), numbers(259, SHORT, 1), numbers(262, SHORT, 32803)),
        *(
            text(271, "Maker"),
            text(272, "Camera"),
            numbers(273, LONG, strip),
            numbers(274, SHORT, orientation),
        ),
        *(numbers(277, SHORT, 1), numbers(278, LONG, height), numbers(279, LONG, mosaic.nbytes)),
        *(numbers(284, SHORT, 1), numbers(33421, SHORT, 2, 2), (33422, BYTE, 4, bytes((0, 1, 1, 2)))),
        *(numbers(34665, LONG, below), (50706, BYTE, 4, bytes((1, 4, 0, 0))), text(50708, "Maker Camera")),
        *(numbers(50714, SHORT, BLACK), numbers(50717, LONG, WHITE), numbers(50778, SHORT, 21)),
        numbers(50721, SRATIONAL, *(to_camera @ from_xyz).ravel()),
        *(*white_balance, *(more or [])),
    ]
    struct.pack_into("<I", body, 4, append(body, fields))
    return bytes(body)
