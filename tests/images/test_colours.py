"""Colour spaces that a file states in two ways, or in a way of its own."""

import struct
from types import SimpleNamespace

import pytest
import pyvips
from PIL import Image, TiffImagePlugin

from helpers.malformed import HEIC, pillow, smooth
from maximir.errors import UnsupportedImage
from maximir.images import decode, encode
from maximir.images.codecs import bitmap, decoders
from maximir.images.codecs.png import chunk, chunks, with_chunks
from maximir.images.metadata import profiles

PQ, HLG, P3, SRGB = b"\x09\x10\0\1", b"\x09\x12\0\1", b"\x0c\x0d\0\1", b"\1\x0d\0\1"
ADOBE = profiles.profile(
    profiles.Colours(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), profiles.D65), 2.2), grey=False
)
DISPLAY = profiles.profile(profiles.by_numbers(12, 13), grey=False)


def png(cicp: bytes | None, icc: bytes | None = ADOBE, grey: bool = False) -> bytes:
    data = pillow(
        "PNG", smooth()[..., 0].copy() if grey else smooth(), **({"icc_profile": icc} if icc else {})
    )
    return data if cicp is None else with_chunks(data, chunk(b"cICP", cicp))


def profile_in(data: bytes) -> bytes | None:
    image = pyvips.Image.new_from_buffer(data, "")
    return image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None


@pytest.mark.parametrize("icc", [ADOBE, None])
@pytest.mark.parametrize("cicp", [PQ, HLG, P3, SRGB, PQ[:3] + b"\0", b"\1\1\0\0"])
def test_png_keeps_its_numbers_and_the_profile_beside_them(cicp, icc):
    photo = decode(png(cicp, icc))
    data, notes = encode(photo, "png")
    assert [body for kind, body in chunks(data) if kind == b"cICP"] == [cicp] and notes == ()
    assert profile_in(data) == (icc or (DISPLAY if cicp == P3 else None))
    assert encode(decode(data), "png")[0] == data


@pytest.mark.parametrize("cicp", [PQ, HLG, PQ[:3] + b"\0"])
@pytest.mark.parametrize("kind", ["jpeg", "webp", "tiff", "avif"])
def test_hdr_is_refused_beside_a_profile_too(cicp, kind):
    with pytest.raises(UnsupportedImage, match=r"HDR colours .* write PNG instead"):
        encode(decode(png(cicp)), kind)


@pytest.mark.parametrize("kind", ["jpeg", "webp", "tiff", "avif"])
def test_the_numbers_of_a_png_count_before_its_profile(kind):
    assert profile_in(encode(decode(png(P3)), kind)[0]) == DISPLAY
    assert profile_in(encode(decode(png(SRGB)), kind)[0]) is None
    assert profile_in(encode(decode(png(None)), kind)[0]) == ADOBE
    _, [note] = encode(decode(png(b"\1\1\0\0")), kind)
    assert note.startswith("values in the narrow range of video")


def test_numbers_of_a_grey_png():
    data, notes = encode(decode(png(P3, None, grey=True)), "png")
    assert (b"cICP", P3) in list(chunks(data)) and profile_in(data)[16:20] == b"GRAY" and notes == ()


def avif(*numbers: int) -> bytes:
    data = bytearray(pillow("AVIF", smooth(), icc_profile=ADOBE))
    struct.pack_into(">HH", data, data.index(b"colrnclx") + 8, *numbers)
    return bytes(data)


def test_avif_with_numbers_and_a_profile():
    assert profile_in(encode(decode(avif(12, 13)), "tiff")[0]) == ADOBE  # as its standard says
    photo = decode(avif(9, 16))  # HDR is never lost
    data, _ = encode(photo, "png")
    assert (b"cICP", PQ) in list(chunks(data)) and profile_in(data) == ADOBE
    with pytest.raises(UnsupportedImage, match="HDR"):
        encode(photo, "avif")


@pytest.mark.parametrize("several", [False, True])
def test_the_light_of_hdr_in_an_avif(several):
    """Its boxes have green, blue and red, and candelas; PNG's chunks red, green and blue, and a 10,000th."""
    frames = {"save_all": True, "append_images": [Image.fromarray(smooth()[::-1])]} if several else {}
    boxes = struct.pack(">I4s8H2I", 32, b"mdcv", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    boxes += struct.pack(">I4s2H", 12, b"clli", 1000, 65_535)
    photo = decode(pillow("AVIF", smooth(), **frames) + struct.pack(">I4s", 8 + len(boxes), b"free") + boxes)
    found = dict(chunks(encode(photo, "png")[0]))
    assert found[b"mDCV"] == struct.pack(">8H2I", 5, 6, 1, 2, 3, 4, 7, 8, 9, 10)
    assert found[b"cLLI"] == struct.pack(">2I", 10_000_000, 655_350_000)
    assert any("brightness of HDR" in note for note in encode(photo, "jpeg")[1])


def test_avif_of_several_frames_with_numbers():
    frames = {"save_all": True, "append_images": [Image.fromarray(smooth()[::-1])]}
    data = bytearray(pillow("AVIF", smooth(), **frames))
    at = data.index(b"colrnclx") + 8
    struct.pack_into(">HH", data, at, 12, 13)
    assert decode(bytes(data)).metadata["icc-profile-data"] == DISPLAY


@pytest.mark.parametrize(("numbers", "kept"), [((12, 13), None), ((9, 16), PQ), ((70_000, 70_000), None)])
def test_heic_with_numbers_and_a_profile(numbers, kept, monkeypatch):
    library = pytest.importorskip("pillow_heif")
    file = library.open_heif((HEIC / "plain.heic").read_bytes())
    file[0].info["nclx_profile"] = dict(
        zip(("color_primaries", "transfer_characteristics"), numbers, strict=True)
    )
    monkeypatch.setattr(library, "open_heif", lambda *_, **__: file)
    photo = decode((HEIC / "plain.heic").read_bytes())
    assert photo.metadata.get("cicp") == kept
    assert profile_in(encode(photo, "png")[0]) == DISPLAY


def bmp(space: int, more: bytes = b"", tail: bytes = b"", length: int = 124) -> bytes:
    """A picture of 2 x 2 pixels with a header that states a colour space."""
    pixels = bytes(range(6)) + bytes(2) + bytes(range(6, 12)) + bytes(2)
    header = struct.pack("<IiiHHIIiiII", length, 2, 2, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    header += bytes(16) + struct.pack("<I", space) + more
    header = header.ljust(length, b"\0")
    offset = 14 + length
    return (
        struct.pack("<2sIHHI", b"BM", offset + len(pixels) + len(tail), 0, 0, offset) + header + pixels + tail
    )


def ends(*xyz: float, gamma: float = 2.2) -> bytes:
    return struct.pack("<9i3I", *(round(v * 2**30) for v in xyz), *[round(gamma * 2**16)] * 3)


def test_colour_spaces_of_bmp():
    at = struct.pack("<II", 124 + 16, len(ADOBE))
    embedded = decode(bmp(bitmap.EMBEDDED, bytes(48) + bytes(4) + at, ADOBE))
    assert embedded.metadata["icc-profile-data"] == ADOBE
    assert profile_in(encode(embedded, "png")[0]) == ADOBE
    assert decode(bmp(bitmap.LINKED, bytes(52) + at, b"C:\\a.icm")).notes == (bitmap.LINK_NOTE,)
    srgb = ends(0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505)
    wide = ends(0.4866, 0.2290, 0.0, 0.2657, 0.6917, 0.0451, 0.1982, 0.0793, 1.0439, gamma=1.8)
    for length in (108, 124):
        assert "icc-profile-data" not in decode(bmp(bitmap.CALIBRATED, srgb, length=length)).metadata
        assert (
            profiles.misfit(decode(bmp(0, wide, length=length)).metadata["icc-profile-data"], grey=False)
            is None
        )
        assert "icc-profile-data" not in decode(bmp(0, length=length)).metadata
    assert "icc-profile-data" not in decode(bmp(0x73524742, wide)).metadata  # "sRGB" counts


def test_the_profile_of_a_gif():
    blocks = b"".join(
        bytes((len(ADOBE[i : i + 255]),)) + ADOBE[i : i + 255] for i in range(0, len(ADOBE), 255)
    )
    gif = pillow("GIF", smooth())
    at = 13 + (3 << ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)
    data = gif[:at] + b"\x21\xff\x0bICCRGBG1012" + blocks + b"\0" + gif[at:]
    assert decode(data).metadata["icc-profile-data"] == ADOBE


def chromaticities(*points: float, grey: bool = False) -> bytes:
    array = smooth()[..., 0].copy() if grey else smooth()
    pairs = [(round(v * 10_000), 10_000) for v in points]
    info = {318: tuple(pairs[6:]), 319: tuple(pairs[:6])}
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in info.items():
        directory[tag] = tuple(TiffImagePlugin.IFDRational(*pair) for pair in values)
    return pillow("TIFF", array, tiffinfo=directory)


@pytest.mark.parametrize("grey", [False, True])
def test_chromaticities_of_a_tiff(grey):
    p3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329)
    photo = decode(chromaticities(*p3, grey=grey))
    assert photo.metadata["icc-profile-data"] == profiles.profile(profiles.by_numbers(12, 13), grey=grey)
    srgb = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
    assert "icc-profile-data" not in decode(chromaticities(*srgb, grey=grey)).metadata
    assert "icc-profile-data" not in decode(chromaticities(*srgb[:6], 0, 0, grey=grey)).metadata


def with_numbers(icc: bytes, numbers: bytes) -> bytes:
    """A profile with one more tag, "cicp"."""
    count = int.from_bytes(icc[128:132], "big")
    table = bytearray(icc[132 : 132 + 12 * count])
    for at in range(4, len(table), 12):
        table[at : at + 4] = (int.from_bytes(table[at : at + 4], "big") + 12).to_bytes(4, "big")
    table += struct.pack(">4sII", b"cicp", len(icc) + 12, 12)
    body = bytes(table) + icc[132 + 12 * count :] + b"cicp" + bytes(4) + numbers
    return struct.pack(">I", 128 + 4 + len(body)) + icc[4:128] + struct.pack(">I", count + 1) + body


def test_numbers_in_a_profile():
    assert profiles.numbers_in(with_numbers(ADOBE, PQ)) == PQ
    assert profiles.numbers_in(ADOBE) is None and profiles.numbers_in(b"") is None
    assert profiles.numbers_in(with_numbers(ADOBE, PQ)[:-1]) is None


def test_jpeg_xl_in_hdr(monkeypatch):
    """Its decoder states HDR in the profile that it makes up."""
    pytest.importorskip("pillow_jxl")
    data, icc = pillow("JXL", smooth(), lossless=True), with_numbers(ADOBE, PQ)
    info = SimpleNamespace(mode="RGB", width=56, height=40)
    answer = (False, info, smooth().tobytes(), icc, [])
    library = SimpleNamespace(Decoder=lambda **_: lambda data: answer)
    monkeypatch.setattr(decoders, "optional", lambda *_: library)
    photo = decode(data)
    assert photo.metadata["cicp"] == PQ
    result, _ = encode(photo, "png")
    assert (b"cICP", PQ) in list(chunks(result)) and profile_in(result) == icc


def test_primaries_that_are_nearly_on_a_line():
    for shift in (0, 1e-7, 1e-5):
        points = ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3 + shift), (0.31, 0.32))
        assert set(profiles.described(profiles.Colours(points), grey=False)) <= {"icc-profile-data"}
