"""Camera raw files, which the tests write: developed as stated, with their EXIF, or refused clearly."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command import files, maximir
from helpers.dng import ASCII, LONG, RATIONAL, SHORT, append, dng, numbers, sensor_values, text
from helpers.malformed import pillow, smooth
from maximir import Restorer
from maximir.errors import DamagedImage, TooLarge, UnsupportedImage
from maximir.images import KINDS, Photo, check_start, decode, encode, kind_for, read
from maximir.images.codecs import decoders, developing, raw, raw_metadata
from maximir.images.metadata import exif, ifd, profiles

pytest.importorskip("rawpy")
NEUTRAL = (0.5, 1.0, 0.7)  # what the sensor sees of grey


def mosaic(light: float = 0.25, height: int = 64, width: int = 96) -> np.ndarray:
    """Even grey light through the colour filters, and one full pixel, which states the sensor's range."""
    plane = np.full((height, width), light)
    plane[::2, ::2] *= NEUTRAL[0]
    plane[1::2, 1::2] *= NEUTRAL[2]
    plane[0, 1] = 1
    return plane


def grey_raw(light: float = 0.25, **how: object) -> bytes:
    return dng(sensor_values(mosaic(light)), **{"neutral": NEUTRAL} | how)


def encoded(light: float) -> float:
    return 65_535 * (1.055 * light ** (1 / 2.4) - 0.055)


def test_grey_is_grey_as_bright_as_it_was():
    for light in (0.02, 0.25, 0.7):
        photo = decode(grey_raw(light))
        assert photo.rgb.shape == (64, 96, 3) and photo.rgb.dtype == np.uint16
        assert np.abs(photo.rgb[30, 40] - encoded(light)).max() < 0.005 * 65_535
    (note,) = photo.notes
    assert note.startswith("DNG developed by LibRaw ") and "the camera's white balance" in note


def test_highlights_are_kept():
    """Green is full where red and blue are not: the light is still there, and full sensors are white."""
    plane = mosaic(0.5)
    plane[:, 40:60] = np.minimum(mosaic(1.2), 1)[:, 40:60]
    plane[:, 70:90] = 1
    rgb = decode(dng(sensor_values(plane), neutral=NEUTRAL)).rgb[32].astype(int)
    assert (rgb[80] == 65_535).all()
    assert 1.1 * encoded(0.5) < rgb[50].min() and rgb[50].max() < 65_535
    levels = [decode(grey_raw(light)).rgb[30, 40, 1] for light in (0.8, 0.9, 0.99)]
    assert levels[0] < levels[1] < levels[2] < 65_535


def test_tone_curves():
    for balance in ((1.0, 1.0, 1.0), (2.0, 1.0, 1.5), (0.3, 0.2, 0.9)):
        curve = developing.tone_curve(balance).astype(int)
        assert (np.diff(curve) >= 0).all() and curve[0] == 0 and curve[-1] == 65_535
    assert (
        np.abs(
            developing.tone_curve((1, 1, 1))[[9000, 60_000]]
            - [encoded(9000 / 65_535), encoded(60_000 / 65_535)]
        ).max()
        < 1
    )


def test_without_a_stated_white_balance():
    photo = decode(grey_raw(neutral=None))
    assert "white balance for daylight, as the file states none" in photo.notes[0]
    assert developing.white_balance([0, 1, 0, 0], [0, 0, 0, 0]) == ([1.0], False)


def test_no_noise_is_removed():
    noisy = mosaic() + np.random.default_rng(5).normal(0, 0.02, (64, 96)) * mosaic() / 0.25
    rgb = decode(dng(sensor_values(noisy), neutral=NEUTRAL)).rgb[8:-8, 8:-8] / 65_535
    assert rgb.std(axis=(0, 1)).min() > 0.01


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (63, 95)), (6, (0, 63)), (8, (95, 0))])
def test_orientation(orientation, corner):
    plane = mosaic(0.02)
    plane[:8, :8] = 1
    data, _ = encode(decode(dng(sensor_values(plane), orientation=orientation)), "tiff")
    photo = decode(data)
    assert photo.rgb.shape[:2] == ((64, 96) if orientation < 5 else (96, 64))
    y, x = corner
    assert photo.rgb[y, x].min() > 60_000 > 20_000 > photo.rgb[63 * (y == 0), 63 * (x == 0)].max()
    assert exif.orientation(photo.metadata["exif-data"]) == 1


def test_exif_and_profile_are_in_the_result():
    lens = text(0xA434, "Lens 50mm")
    maker_notes = (0x927C, 7, 40, b"Maker notes " + bytes(28))
    xmp = (
        b'<x:xmpmeta xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:Exposure="2" dc:title="t"/>'
    )
    more = [text(270, "Title"), text(50735, "Serial"), (700, 1, len(xmp), xmp)]
    photo = decode(grey_raw(exif=[lens, maker_notes], more=more))
    assert photo.notes[1:] == (
        "maker notes moved: what they point to in the file may not be found",
        "XMP with settings for developing left out",
    )
    data, notes = encode(photo, "tiff")
    assert notes == ()
    with Image.open(io.BytesIO(data)) as image:
        tags, below = image.tag_v2, image.getexif().get_ifd(exif.EXIF)
        assert (tags[270], tags[271], tags[50735]) == ("Title", "Maker", "Serial")
        assert (
            below[34855] == 3200 and below[0xA434] == "Lens 50mm" and below[0x927C].startswith(b"Maker notes")
        )
        assert not {50706, 50721, 50728, 33421, 33422} & set(
            tags
        )  # of the sensor: it is no raw file any more
        assert b"dc:title" in tags[700] and b"crs:Exposure" not in tags[700]
    assert raw.name(data) is None
    assert profiles.misfit(decode(data).metadata["icc-profile-data"], grey=False) is None


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_other_formats(kind):
    photo = decode(grey_raw())
    back = decode(encode(photo, kind)[0])
    assert back.rgb.shape == photo.rgb.shape and back.metadata["icc-profile-data"].startswith(b"\0\0\x02")
    assert b"Maker" in back.metadata["exif-data"]


def test_one_that_is_left_alone_is_developed_nevertheless():
    photo = decode(grey_raw())
    left_alone = Photo(photo.rgb, metadata=photo.metadata, source=photo.source, unchanged=photo.notes)
    assert decode(encode(left_alone, "tiff")[0]).rgb.shape == (64, 96, 3)
    assert kind_for(grey_raw()) == "tiff" and kind_for(pillow("PNG", smooth())) == "png"
    assert kind_for(pillow("GIF", smooth()[..., 0])) == "png"


def test_monochrome_cameras():
    data = bytearray(grey_raw())
    at = data.index(struct.pack("<HHI", 262, SHORT, 1))
    struct.pack_into("<H", data, at + 8, 34892)  # linear raw of one channel
    photo = decode(bytes(data))
    assert photo.grey and profiles.misfit(photo.metadata["icc-profile-data"], grey=True) is None
    assert encode(photo, "tiff")[1] == ()


def test_what_cannot_be_developed():
    whole = grey_raw()
    with pytest.raises(DamagedImage, match=r"the camera raw file \(DNG\) is truncated or damaged"):
        decode(grey_raw(size=(640, 96)))  # less than it states
    with pytest.raises(
        UnsupportedImage, match=r"LibRaw [\d.]+ does not know this camera raw file \(DNG\); export"
    ):
        decode(grey_raw(more=[numbers(259, SHORT, 52546)]))
    with pytest.raises(UnsupportedImage, match=r"does not know this camera raw file \(Fujifilm RAF\)"):
        decode(b"FUJIFILMCCD-RAW 0201" + bytes(200))
    asked = []

    def admit(width: int, height: int) -> None:
        asked.append((width, height))
        raise TooLarge("no")

    with pytest.raises(TooLarge, match="no"):
        decode(whole, admit)
    assert asked == [(96, 64)]
    with pytest.raises(TooLarge, match="96000x64000 is over the limit of 250,000,000 pixels"):
        decode(grey_raw(size=(64_000, 96_000)))


def test_without_the_library(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(decoders.importlib, "import_module", missing)
    said = r"camera raw \({}\) files need more libraries; install them: pip install 'maximir\[raw\]'"
    with pytest.raises(UnsupportedImage, match=said.format("DNG")):
        decode(grey_raw())
    with pytest.raises(UnsupportedImage, match=said.format("Canon CR3")):
        check_start(struct.pack(">I8s", 24, b"ftypcrx ") + bytes(40))


# Places of EXIF in the files of other makers


def jpeg_inside() -> tuple[bytes, bytes]:
    block = Image.Exif()
    block[271], block[274] = "Inside", 6
    body = block.tobytes()
    return pillow("JPEG", smooth(), exif=body), body.removeprefix(exif.PREFIX)


def test_exif_of_fujifilm_and_panasonic_is_the_original_block():
    jpeg, block = jpeg_inside()
    head = (b"FUJIFILMCCD-RAW 0201").ljust(84, b"\0") + struct.pack(">II", 200, len(jpeg))
    found, notes = raw_metadata.described(head.ljust(200, b"\0") + jpeg, "Fujifilm RAF")
    assert found["exif-data"] == block and notes == ()
    body = bytearray(b"IIU\0" + bytes(4))
    struct.pack_into("<I", body, 4, append(body, [text(271, "Panasonic"), (0x2E, 7, len(jpeg), jpeg)]))
    found, notes = raw_metadata.described(bytes(body), "Panasonic RW2")
    assert found["exif-data"] == block and notes == ()


def test_exif_of_olympus_is_a_tiff_of_another_name():
    body = bytearray(b"IIRO" + bytes(4))
    below = append(body, [numbers(33434, RATIONAL, 0.01)])
    struct.pack_into("<I", body, 4, append(body, [text(271, "OLYMPUS"), numbers(34665, LONG, below)]))
    found, _ = raw_metadata.described(bytes(body), "Olympus ORF")
    assert b"OLYMPUS" in found["exif-data"] and exif.is_exif(found["exif-data"])


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def test_exif_of_canon_is_joined_from_boxes():
    parts = b""
    for name, fields in (
        (b"CMT1", [text(271, "Canon"), numbers(274, SHORT, 8), numbers(256, LONG, 9000)]),
        (b"CMT2", [numbers(34855, SHORT, 800), text(0xA434, "RF50mm")]),
        (b"CMT4", [(1, ASCII, 2, b"N\0")]),
    ):
        body = bytearray(b"II*\0" + bytes(4))
        struct.pack_into("<I", body, 4, append(body, fields))
        parts += box(name, bytes(body))
    data = box(b"ftyp", b"crx " + bytes(8)) + box(b"moov", box(b"uuid", raw_metadata.CANON + parts))
    found, notes = raw_metadata.described(data, "Canon CR3")
    assert notes == ("maker notes left out",)
    whole = encode(Photo(smooth(), metadata=found), "jpeg")[0]
    with Image.open(io.BytesIO(whole)) as image:
        tags = image.getexif()
        assert tags[271] == "Canon" and 274 not in tags and 256 not in tags
        assert tags.get_ifd(exif.EXIF)[0xA434] == "RF50mm" and tags.get_ifd(exif.GPS)[1] == "N"


def test_exif_that_is_not_found_is_said():
    for data in (b"FOVb" + bytes(80), b"FUJIFILMCCD-RAW", b"IIRO\xff\xff\xff\xff", ifd.STARTS[0] + bytes(8)):
        found, notes = raw_metadata.described(data, raw.name(data) or "DNG")
        assert found == {} and notes == (raw_metadata.NOT_FOUND,)


# The command and Python


def test_restoring_raw_files(tmp_path, tiny_weights, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dng").write_bytes(grey_raw())
    (tmp_path / "in" / "really.tif").write_bytes(grey_raw(orientation=6))
    data, _ = encode(Photo(np.full((8, 9, 3), 40_000, np.uint16)), "tiff")
    (tmp_path / "in" / "plain.dng").write_bytes(data)  # the content decides
    maximir("restore", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny_weights)
    assert files(tmp_path / "out") == ["a.dng.tif", "plain.dng.tif", "really.tif"]
    lines = {
        Path(line.split(" →")[0]).name: line for line in capsys.readouterr().err.splitlines() if "→" in line
    }
    assert "DNG developed by LibRaw" in lines["a.dng"] and "developed" not in lines["plain.dng"]
    for name, shape in (("a.dng.tif", (64, 96)), ("really.tif", (96, 64)), ("plain.dng.tif", (8, 9))):
        photo = read(tmp_path / "out" / name)
        assert photo.rgb.shape[:2] == shape and photo.rgb.dtype == np.uint16
    notes = Restorer(tiny_weights).restore_file(tmp_path / "in" / "a.dng", tmp_path / "a.jpg")
    assert notes[0].startswith("DNG developed") and notes[-1] == "16 bit reduced to the 8 of JPEG"
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.size == (96, 64) and image.getexif()[271] == "Maker"
