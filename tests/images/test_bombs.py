"""Small files that say they are huge, and files that go in circles: settled soon and in little memory."""

import functools
import struct
import time
import zlib

import numpy as np

from helpers.malformed import originals, pillow, tiff_pieces
from helpers.watched import watch
from maximir import images
from maximir.errors import DamagedImage, TooLarge, UnsupportedImage
from maximir.images.codecs.png import chunk

SECONDS, BYTES = 0.5, 100e6


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(height * (3 * width + 1) if height < 99 else 1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + rows + chunk(b"IEND", b"")


def zeros(count: int = 200_000_000) -> bytes:
    """Deflated, a thousandth of that: the same megabyte over and over, since packing all takes seconds."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(10**6)) + packer.flush(zlib.Z_FULL_FLUSH)
    end, check = b"\x03\0", count % 65_521 << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + block * (count // 10**6) + end + check.to_bytes(4, "big")


def patched(name: str, mark: bytes, by: int, how: str, *values: int) -> bytes:
    """An original with other numbers behind a mark."""
    data = bytearray(originals()[name])
    struct.pack_into(how, data, data.index(mark) + by, *values)
    return bytes(data)


def tiff(**entries: int) -> bytes:
    """An original with other values in its directory, by the tags' numbers."""
    data = bytearray(originals()["tiff tiles" if "t322" in entries else "tiff"])
    for piece in tiff_pieces(bytes(data)):
        tag = int.from_bytes(data[piece.start : piece.start + 2], "little")
        if f"t{tag}" in entries:
            struct.pack_into("<HII", data, piece.start + 2, 4, 1, entries[f"t{tag}"])
        if f"n{tag}" in entries:
            struct.pack_into("<I", data, piece.start + 4, entries[f"n{tag}"])
    return bytes(data)


def circular_tiff() -> bytes:
    """The directory says that the next one is itself."""
    data = bytearray(originals()["tiff"])
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    return bytes(data)


def gif(width: int, height: int, frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<2H3B", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


def webp(width: int, height: int, frames: int) -> bytes:
    def riff(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    still = pillow("WEBP", np.zeros((1, 1, 3), np.uint8), lossless=True)[12:]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = riff(b"VP8X", b"\2\0\0\0" + size) + riff(b"ANIM", bytes(6))
    body += riff(b"ANMF", bytes(12) + b"\1\0\0\0" + still) * frames
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@functools.cache
def bombs() -> dict[str, bytes]:
    text = b"Comment\0\0" + zeros()
    made = {
        "png": png(50_000, 50_000),
        "png within the limit": png(15_800, 15_800),
        "png iCCP": png(9, 9, chunk(b"iCCP", b"icc\0\0" + zeros())),
        "png zTXt": png(9, 9, *[chunk(b"zTXt", text)] * 4),
        "png iTXt": png(9, 9, chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros())),
        "png eXIf": png(9, 9, chunk(b"eXIf", b"II*\0\x08\0\0\0" + bytes(4_000_000))),
        "png texts": png(9, 9, chunk(b"tEXt", b"k\0v") * 100_000),
        "apng": png(9, 9, chunk(b"acTL", struct.pack(">2I", 2**31, 0))),
        "jpeg": patched("jpeg", b"\xff\xc0", 5, ">2H", 65_500, 65_500),
        "jpeg within the limit": patched("jpeg", b"\xff\xc0", 5, ">2H", 15_800, 15_800),
        "jpeg xmp": originals()["jpeg"][:2]
        + (b"\xff\xe1\xff\xff" + bytes(65_533)) * 300
        + originals()["jpeg"][2:],
        "avif": patched("avif", b"ispe", 8, ">2I", 17_000, 17_000),
        "avif within the limit": patched("avif", b"ispe", 8, ">2I", 15_800, 15_800),
        "avif animated": patched("avif animated", b"ispe", 8, ">2I", 17_000, 17_000),
        "tiff": tiff(t256=60_000, t257=60_000),
        "tiff within the limit": tiff(t256=15_800, t257=15_800),
        "tiff strips": tiff(t278=2**31),
        "tiff counts": tiff(n273=2**30, n279=2**30),
        "tiff circular": circular_tiff(),
        "gif": gif(65_535, 65_535, 1),
        "gif frames": gif(4, 4, 200_000),
        "webp": webp(16_384, 16_384, 1),
        "webp frames": webp(16, 16, 50_000),
        "bmp": patched("bmp", b"BM", 18, "<2i", 50_000, 50_000),
        "jxl": b"\xff\x0a" + ((0b11 << 1) | (29_999 << 3) | (1 << 33)).to_bytes(8, "little") + bytes(90),
    }
    if "heic plain" in originals():
        made["heic"] = patched("heic plain", b"ispe", 8, ">2I", 17_000, 17_000)
    return made


def attempt(name: str) -> str:
    data = bombs()[name]
    began = time.process_time()
    try:
        images.decode(data)
        said = "read"
    except (DamagedImage, TooLarge, UnsupportedImage) as error:
        said = str(error)
    return f"{time.process_time() - began:.2f} {said}"


def test_bombs():
    names = ["apng", *bombs()]  # first something harmless: what is loaded only once does not count
    verdicts = {verdict.case: verdict for verdict in watch(attempt, names)}
    for name, verdict in verdicts.items():
        print(f"{name}, {len(bombs()[name]):,} bytes: {verdict.outcome}, {verdict.peak / 1e6:.0f} MB")
        seconds, said = verdict.outcome.split(" ", 1)
        assert float(seconds) < SECONDS and verdict.peak < BYTES, (name, verdict)
        if name in HUGE:
            assert "over the limit" in said or "more than 10,000 frames" in said, (name, verdict)


HUGE = ("png", "jpeg", "avif", "heic", "tiff", "webp frames", "bmp", "jxl")
