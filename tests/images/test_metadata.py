"""What a file says about its picture arrives in the result unchanged, or a note says what did not."""

import contextlib
import hashlib
import io
import itertools
import random
import struct
import time
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from helpers import kept
from helpers.kept import ELSEWHERE, KINDS, THUMBNAIL, XMP, block, everything, fields, pointed_to
from helpers.malformed import HEIC, pillow, smooth
from maximir.images import Photo, decode, encode
from maximir.images.codecs import heif, jpeg, png, tiff
from maximir.images.codecs.png import chunk, chunks, with_chunks
from maximir.images.metadata import exif, ifd, iptc, xmp

ALL = sorted(KINDS.values())
DOCS = Path(__file__).parents[2] / "docs" / "files.md"
ORIENTATION = 0x0112
# What restoring changes.
CHANGED = {(0, ORIENTATION), (exif.EXIF, 0xA002), (exif.EXIF, 0xA003), (exif.EXIF, 0x9214)}
RDF = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
END = b"</rdf:RDF></x:xmpmeta>"


def photo_of(**metadata: object) -> Photo:
    return Photo(smooth(), metadata={name.replace("_", "-"): value for name, value in metadata.items()})


def jpeg_of(*segments: bytes, array: np.ndarray | None = None) -> bytes:
    data = pillow("JPEG", smooth() if array is None else array, quality=95)
    return data[:2] + b"".join(segments) + data[2:]


# The table


@pytest.mark.parametrize("row", kept.ROWS)
@pytest.mark.parametrize("kind", ALL)
def test_kept_or_said(row, kind):
    kept.cell(row, kind)


def test_the_table_in_the_docs_is_this_one():
    assert kept.table() in DOCS.read_text(), "run: python scripts/metadata.py"


@pytest.mark.parametrize(("source", "target"), list(itertools.product(ALL, ALL)))
def test_kept_or_said_from_each_format_to_each(source, target):
    data, _ = encode(Photo(smooth(56, 40), metadata=everything()), source)
    for row, (more, arrived) in kept.ROWS.items():
        if not more and arrived(data, source):
            photo = decode(data)
            kept.cell(row, target, photo.notes, photo)


@pytest.mark.skipif(kept.EXIFTOOL is None, reason="exiftool is not installed")
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ALL)
def test_exiftool_finds_the_same(kind, order, tmp_path):
    metadata = everything(order)
    segment = jpeg.segment(0xE1, exif.PREFIX + metadata.pop("exif-data"))
    data, _ = encode(Photo(smooth(40, 56), metadata=metadata), "jpeg")
    source = data[:2] + segment + data[2:]
    before = kept.by_exiftool(source, tmp_path / "a.jpg")
    after = kept.by_exiftool(encode(decode(source), kind)[0], tmp_path / "b")
    groups = ("IFD0:", "ExifIFD:", "GPS:", "InteropIFD:", "XMP-")
    groups += ("IPTC:", "Photoshop:") if kind in ("jpeg", "tiff") else ()
    wanted = {name: value for name, value in before.items() if name.startswith(groups)}
    changed = {"IFD0:Orientation", "ExifIFD:ExifImageWidth", "ExifIFD:ExifImageHeight"}
    changed |= {"ExifIFD:SubjectArea"}
    if kind == "tiff":  # JPEG's own is what the file itself has
        changed |= {"IFD0:XResolution", "IFD0:YResolution"}
    assert len(wanted) >= 25
    assert {name: after.get(name) for name in wanted if name not in changed} == {
        name: value for name, value in wanted.items() if name not in changed
    }
    assert after["IFD0:Orientation"] == "Horizontal (normal)"
    assert (after["ExifIFD:ExifImageWidth"], after["ExifIFD:ExifImageHeight"]) == (40, 56)
    assert not any(name.startswith("IFD1:") for name in after)
    assert "ExifTool:Error" not in after


# EXIF


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("late", [True, False])
def test_a_block_is_changed_in_place_and_only_where_it_must(order, late):
    before = block(order, late=late)
    after = exif.restored(before, 40, 56)
    assert pointed_to(after) == pointed_to(before) == ELSEWHERE
    a, b = fields(before), fields(after)
    assert {field for field in a if a[field] != b[field]} == CHANGED and a.keys() == b.keys()
    assert b[0, ORIENTATION] == b"\1\0" and exif.orientation(after) == 1
    assert b[exif.EXIF, 0xA002] == struct.pack("<I", 40) and b[exif.EXIF, 0xA003] == struct.pack("<H", 56)
    assert THUMBNAIL in before and b"the picture as it was" not in after
    assert len(after) < len(before) if late else len(after) == len(before)
    assert exif.restored(after, 40, 56) == after
    assert exif.restored(exif.PREFIX + before, 40, 56) == after


@pytest.mark.parametrize("order", "<>")
def test_a_thumbnail_that_lies_where_other_things_are_blanks_nothing(order):
    whole = bytearray(block(order))
    reader = ifd.Reader(whole)
    first, end = reader.directory(reader.first())
    make = next(field for field in first if field.tag == 0x010F)
    for field in reader.directory(reader.following(end))[0]:
        if field.tag in (0x0201, 0x0202):
            struct.pack_into(order + "I", whole, field.begin, make.begin if field.tag == 0x0201 else 200)
    after = exif.restored(bytes(whole), 40, 56)
    assert fields(after)[0, 0x010F] == b"Maker\0" and pointed_to(after) == ELSEWHERE
    assert fields(after).keys() == fields(block(order)).keys()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_resolution_turns_with_the_picture(kind, orientation):
    tag = Image.Exif()
    tag[ORIENTATION] = orientation
    resolutions = {exif.X_RESOLUTION: 204.0, exif.Y_RESOLUTION: 98.0, exif.RESOLUTION_UNIT: 2}
    for field, value in resolutions.items():
        tag[field] = value
    data = pillow(kind, np.zeros((40, 56), np.uint8), exif=tag, dpi=(204, 98))
    for to in ("jpeg", "png", "tiff"):
        result = encode(decode(data), to)[0]
        again = decode(result).metadata
        expected = (98, 204) if orientation > 4 else (204, 98)
        assert (round(again["xres"] * 25.4), round(again["yres"] * 25.4)) == expected
        stated = Image.open(io.BytesIO(result)).getexif()
        if exif.X_RESOLUTION in stated:
            assert (stated[exif.X_RESOLUTION], stated[exif.Y_RESOLUTION]) == expected


@pytest.mark.parametrize(("orientation", "expected"), [(3, (3, 2)), (6, (2, 3))])
def test_the_shape_of_pixels_turns_with_the_picture(orientation, expected):
    """A PNG may state only how wide pixels are for their height."""
    tag = Image.Exif()
    tag[ORIENTATION] = orientation
    plain = pillow("PNG", np.zeros((40, 56), np.uint8), exif=tag)
    result = encode(decode(with_chunks(plain, chunk(b"pHYs", struct.pack(">IIB", 3, 2, 0)))), "png")[0]
    assert dict(chunks(result))[b"pHYs"] == struct.pack(">IIB", *expected, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_subject_stays_where_it_is(orientation):
    """In a picture with one bright pixel, turned by Pillow."""
    stored = np.zeros((40, 56), np.uint8)
    x, y = 10, 20  # as in the block: 4 wide and 6 high
    stored[y, x] = 255
    tag = Image.Exif()
    tag[ORIENTATION] = orientation
    picture = decode(pillow("PNG", stored, exif=tag)).rgb[..., 0]
    (row, column) = np.argwhere(picture)[0]
    area = fields(exif.restored(block("<", orientation), *picture.shape[::-1]))[exif.EXIF, 0x9214]
    left, top, width, height = struct.unpack("<4H", area)
    assert abs(left - column) <= 1 and abs(top - row) <= 1
    assert (width, height) == ((6, 4) if orientation > 4 else (4, 6))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("wide", [False, True])
def test_pixels_are_the_same_beside_any_block(kind, order, wide):
    """A TIFF has the byte order of its EXIF: pixels of 16 bits, too."""
    rgb = smooth().astype(np.uint16) * 257 + 3 if wide else smooth()
    alpha = None if kind == "jpeg" else rgb[..., 0].copy()
    plain = decode(encode(Photo(rgb, alpha=alpha), kind)[0])
    data, _ = encode(Photo(rgb, alpha=alpha, metadata={"exif-data": block(order)}), kind)
    photo = decode(data)
    assert np.array_equal(photo.rgb, plain.rgb) and photo.rgb.dtype == plain.rgb.dtype
    assert alpha is None or np.array_equal(photo.alpha, plain.alpha)
    grey = Photo(np.repeat(rgb[..., :1], 3, 2), True, metadata={"exif-data": block(order)})
    assert (
        np.abs(decode(encode(grey, kind)[0]).rgb.astype(int) - decode(encode(grey, kind)[0]).rgb).max() == 0
    )
    if kind == "tiff":
        assert data[:2] == (b"II" if order == "<" else b"MM")
        assert np.array_equal(photo.rgb, rgb) and np.array_equal(decode(encode(grey, kind)[0]).rgb, grey.rgb)
        with Image.open(io.BytesIO(data)) as image:
            if not wide:  # Pillow has no colours of 16 bits
                assert np.array_equal(np.asarray(image)[..., :3], rgb)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_is_invented(kind):
    for photo in (Photo(smooth()), photo_of(icc_profile_data=kept.ICC), photo_of(xmp_data=XMP % b"")):
        back = decode(encode(photo, kind)[0]).metadata
        assert back.keys() == photo.metadata.keys()
    data, _ = encode(Photo(smooth()), kind)
    with Image.open(io.BytesIO(data)) as image:
        assert "dpi" not in image.info or kind == "tiff"  # where Pillow takes 1 for granted
        ours = {256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 339} if kind == "tiff" else set()
        assert set(image.getexif()) <= ours
    tag = Image.Exif()
    tag[0x010F] = "Maker"
    back = fields(kept.block_in(encode(photo_of(exif_data=tag.tobytes()), kind)[0], kind))
    assert {field for field in back if field[1] not in tiff.LAYOUT} == {(0, 0x010F)}
    assert not any(field[1] in tiff.RESOLUTION for field in back)


def test_resolutions_are_not_invented_by_decoders():
    """libvips takes EXIF without a resolution for 72 dpi."""
    tag = Image.Exif()
    tag[0x010F] = "Maker"
    for data in (
        pillow("JPEG", smooth(), exif=tag),
        pillow("WEBP", smooth(), exif=tag),
        pillow("TIFF", smooth()),
    ):
        assert "xres" not in decode(data).metadata
    assert decode(pillow("JPEG", smooth(), dpi=(300, 150))).metadata["yres"] == pytest.approx(150 / 25.4)


def test_absurd_resolutions_are_none():
    tag = Image.Exif()
    tag[282], tag[283], tag[296] = 4e9, 4e9, 3
    dense = with_chunks(pillow("PNG", smooth()), chunk(b"pHYs", struct.pack(">IIB", 2**31, 2**31, 1)))
    flat = with_chunks(pillow("PNG", smooth()), chunk(b"pHYs", struct.pack(">IIB", 0, 9, 1)))
    for data in (pillow("JPEG", smooth(), exif=tag), dense, flat):
        photo = decode(data)
        assert "xres" not in photo.metadata
        for kind in ALL:
            back = decode(encode(photo, kind)[0])
            assert "xres" not in back.metadata and np.abs(back.rgb.astype(int) - photo.rgb).max() <= 8


def test_hostile_blocks_cost_little():
    entries = 5_000
    for order in "<>":
        start = b"II*\0" if order == "<" else b"MM\0*"
        many = struct.pack(order + "H", 65_535) + b"".join(
            struct.pack(order + "HHII", k % 65_536, 7, 2**20, 8) for k in range(entries)
        )
        circular = struct.pack(order + "HHHIIHHIII", 2, exif.EXIF, 4, 1, 8, exif.INTEROP, 4, 1, 8, 8)
        for body in (many + bytes(2**20), circular, b"\xff" * 20, b""):
            began = time.process_time()
            data = start + struct.pack(order + "I", 8) + body
            assert len(exif.restored(data, 4, 4)) <= len(data)
            for kind in ALL:
                encode(photo_of(exif_data=data), kind)
            assert time.process_time() - began < 3
    thumbnails = b"II*\0" + struct.pack("<IHI", 8, 0, 14) + struct.pack("<H", 60_000)
    pieces = b"".join(struct.pack("<HHII", 0x0111 + 6 * (k % 2), 4, 100_000, 14) for k in range(60_000))
    began = time.process_time()
    exif.restored(thumbnails + pieces, 4, 4)
    assert time.process_time() - began < 2


def test_the_work_with_directories_has_an_end():
    reader = ifd.Reader(b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(12 * 65_535))
    reader.directory(8)
    with pytest.raises(struct.error, match="too many fields"):
        reader.directory(8)


def test_damaged_blocks_never_crash_and_never_grow():
    rng = random.Random(5)
    whole = block()
    for _ in range(1_000):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(8, len(whole))])])
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(4, len(data))] = rng.choice((0, 1, 255, rng.randrange(256)))
        assert len(exif.restored(bytes(data), 40, 56)) <= len(data)
        exif.orientation(bytes(data))
        exif.resolution(bytes(data))
        if rng.random() < 0.1:
            assert np.array_equal(decode(encode(photo_of(exif_data=bytes(data)), "tiff")[0]).rgb, smooth())


def test_what_of_a_long_block_fits_into_a_jpeg_is_kept():
    for more, gone in ((70_000, "maker notes"), (2_000_000, "maker notes")):
        data, notes = encode(photo_of(exif_data=block(more=more)), "jpeg")
        assert notes == (f"{gone} left out, too long for JPEG",)
        before, after = fields(block()), fields(decode(data).metadata["exif-data"])
        assert before.keys() - after.keys() <= {(exif.EXIF, 0x927C), (0, ORIENTATION)}
        assert all(after[field] == before[field] for field in after if field not in CHANGED)
    data, notes = encode(photo_of(exif_data=block() + b"x" * 70_000), "jpeg")  # no field has these
    assert notes == (tiff.MOVED,) and (exif.EXIF, 0x927C) in fields(decode(data).metadata["exif-data"])
    tag = Image.Exif()
    tag[0x10E], tag[0x10F] = "x" * 70_000, "maker"
    long = tag.tobytes().removeprefix(exif.PREFIX)
    assert encode(photo_of(exif_data=long), "jpeg")[1] == ("EXIF's field 0x010E left out, too long for JPEG",)
    broken = b"II*\0" + struct.pack("<I", 90_000) + bytes(80_000)
    assert encode(photo_of(exif_data=broken), "jpeg")[1] == (
        "EXIF of 80,008 bytes left out, too long for JPEG",
    )


def test_long_blocks_in_several_segments():
    long = block(more=70_000)
    parts = [long[:60_000], long[60_000:]]
    photo = decode(jpeg_of(*(jpeg.segment(0xE1, exif.PREFIX + part) for part in parts)))
    assert photo.metadata["exif-data"] == long
    assert encode(photo, "jpeg")[1] == ("maker notes left out, too long for JPEG",)


# TIFF


def test_fields_that_are_cut_off_are_said():
    whole = block(late=False)
    assert encode(photo_of(exif_data=whole), "tiff")[1] == ()
    odd = whole.replace(struct.pack("<HHI", 0x010F, 2, 6), struct.pack("<HHI", 0x010F, 2, 60_000))
    data, notes = encode(photo_of(exif_data=odd), "tiff")
    assert notes == ("damaged fields of EXIF left out",) and (0, 0x010F) not in fields(data)


@pytest.mark.parametrize("kind", [16, 17, 18, 129])
def test_types_that_tiff_lacks_do_not_spoil_the_file(kind):
    """EXIF 3.0 has UTF-8, and BigTIFF integers of 64 bits; libtiff takes either for damage in its fields."""
    value = "für".encode().ljust(8, b"\0")
    made = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 65_000, kind, 8 // ifd.SIZES[kind], 26, 0) + value
    data, notes = encode(photo_of(exif_data=made), "tiff")
    assert np.array_equal(decode(data).rgb, smooth())
    assert notes == (() if kind == ifd.UTF8 else ("damaged fields of EXIF left out",))
    assert fields(data).get((0, 65_000)) == (value if kind == ifd.UTF8 else None)


def test_odd_resolutions_do_not_spoil_the_file():
    """libtiff believes the fields that it knows."""
    odd = block().replace(
        struct.pack("<HHIHH", 0x0128, 3, 1, 2, 0), struct.pack("<HHIHH", 0x0128, 3, 1, 128, 0)
    )
    assert odd != block()
    data, _ = encode(photo_of(exif_data=odd), "tiff")
    assert np.array_equal(decode(data).rgb, smooth()) and fields(data)[0, 0x010F] == b"Maker\0"


def test_tiffs_keep_their_own_fields():
    for order in "<>":
        source, _ = encode(Photo(smooth(), metadata=everything(order)), "tiff")
        before = fields(source)
        for big in (False, True):
            read = decode(big_tiff(source) if big else source)
            assert np.array_equal(read.rgb, smooth()) and read.notes == (tiff.MOVED,)
            lost = {(0, tag) for tag in tiff.LAYOUT} | ({(exif.INTEROP, 1)} if big else set())
            for after in (fields(read.metadata["exif-data"]), fields(encode(read, "tiff")[0])):
                assert before.keys() - after.keys() <= lost
                own = {field for field in after if field[1] not in tiff.LAYOUT and field not in CHANGED}
                assert {field: after[field] for field in own} == {field: before[field] for field in own}


def test_fields_without_end_are_said():
    data = bytearray(encode(photo_of(exif_data=block()), "tiff")[0])
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    table = data[at + 2 : at + 2 + 12 * count]
    more = b"".join(struct.pack("<HHII", 60_000 + k, 7, 2**20, 8) for k in range(30))
    struct.pack_into("<I", data, 4, len(data))
    data += struct.pack("<H", count + 30) + table + more + bytes(2**20)
    began = time.process_time()
    photo = decode(bytes(data))
    assert tiff.NOT_COPIED in photo.notes and len(photo.metadata["exif-data"]) < 2 * tiff.MAX_FIELDS_BYTES
    assert time.process_time() - began < 2


def big_tiff(data: bytes) -> bytes:
    """The same as a BigTIFF: offsets in front, its directories behind."""
    reader = ifd.Reader(data)
    order, shift = reader.order, 8
    body = bytearray(data[:2] + struct.pack(order + "HHHQ", 43, 8, 0, 0) + data[8:])

    def directory(start: int) -> int:
        table = b""
        for field in reader.directory(start)[0]:
            kind, value = field.kind, reader.value(field)
            if field.tag in (exif.EXIF, exif.GPS):
                kind, value = 16, struct.pack(order + "Q", directory(reader.numbers(field)[0]))
            elif field.tag == exif.INTEROP:
                continue
            elif field.tag == 273:
                value = struct.pack(f"{order}{field.n}I", *(at + shift for at in reader.numbers(field)))
            table += entry(order, field.tag, kind, field.n, value, body)
        body.extend(struct.pack(order + "Q", len(table) // 20) + table + bytes(8))
        return len(body) - len(table) - 16

    struct.pack_into(order + "Q", body, 8, directory(reader.first()))
    return bytes(body)


def entry(order: str, tag: int, kind: int, n: int, value: bytes, body: bytearray) -> bytes:
    if len(value) > 8:
        body.extend(value)
        value = struct.pack(order + "Q", len(body) - len(value))
    return struct.pack(order + "HHQ", tag, kind, n) + value.ljust(8, b"\0")


# AVIF


@pytest.mark.parametrize("order", "<>")
def test_the_exif_of_libvips_leaves_nothing_in_an_avif(order):
    data, _ = encode(photo_of(exif_data=block(order)), "avif")
    assert data.count(b"II*\0") + data.count(b"MM\0*") == 1


def test_avifs_of_other_libraries(monkeypatch):
    """Whose boxes are not those that we know: never a crash, and it is said."""
    data, _ = encode(photo_of(exif_data=block()), "avif")
    for at in range(len(data) - 1500):
        for value in (0, 255):
            with contextlib.suppress(ValueError):
                heif.with_exif(data[:at] + bytes([value]) + data[at + 1 :], b"II*\0")
    monkeypatch.setattr(heif, "with_exif", refuse)
    assert encode(photo_of(exif_data=block()), "avif")[1] == ("EXIF left out",)


def refuse(*_: object) -> bytes:
    raise ValueError("odd boxes")


# XMP


def test_xmp_about_what_is_left_out_goes():
    packet = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:G="http://ns.google.com/photos/1.0/camera/" G:MotionPhoto="1" xmp:Rating='5'
 G:MicroVideoOffset='1234' G:Other="stays" xmlns:hdr="http://ns.adobe.com/hdr-gain-map/1.0/" hdr:Version="1.0"
 xmlns:C="http://ns.google.com/photos/1.0/container/" xmlns:I="http://ns.google.com/photos/1.0/container/item/">
 <G:MotionPhotoVersion>1</G:MotionPhotoVersion>
 <hdr:GainMapMax><rdf:Seq><rdf:li>1</rdf:li></rdf:Seq></hdr:GainMapMax><C:Directory><rdf:Seq>
  <rdf:li rdf:parseType="Resource"><C:Item I:Length="99"/></rdf:li></rdf:Seq></C:Directory>
 <xmp:Thumbnails xmlns:xmp="http://ns.adobe.com/xap/1.0/">abc</xmp:Thumbnails><dc:title>kept</dc:title>
</rdf:Description></rdf:RDF></x:xmpmeta>"""
    found, notes = xmp.corrected(packet, 4, 4, turned=False)
    assert notes == (xmp.BESIDES_GONE,)
    for gone in (b"MotionPhoto", b"MicroVideo", b"Version", b"GainMapMax", b"Directory", b"Length", b"abc"):
        assert gone not in found
    for stays in (b'G:Other="stays"', b"xmp:Rating='5'", b"<dc:title>kept</dc:title>", b"</rdf:Description>"):
        assert stays in found
    ElementTree.fromstring(found.replace(b"xmp:Rating='5'", b"").replace(b"dc:", b""))
    assert xmp.corrected(found, 4, 4, turned=False) == (found, ())
    assert xmp.corrected(XMP % b"x", 4, 4, turned=True) == (XMP % b"x", ())


def test_xmp_that_states_sizes_and_places():
    packet = (
        b'<a tiff:Orientation="6" tiff:ImageWidth="56" exif:PixelYDimension=\'40\'>'
        b"<tiff:ImageLength>40</tiff:ImageLength>"
        b'<exif:PixelXDimension>56</exif:PixelXDimension><r:Regions xmlns:r="http://www.metadataworkinggroup.com/'
        b'schemas/regions/">face</r:Regions></a>'
    )
    found, notes = xmp.corrected(packet, 40, 56, turned=True)
    assert notes == (xmp.PLACES_GONE,) and b"face" not in found
    assert b'tiff:Orientation="1" tiff:ImageWidth="40" exif:PixelYDimension=\'56\'' in found
    assert b">56</tiff:ImageLength><exif:PixelXDimension>40<" in found
    found, notes = xmp.corrected(packet, 56, 40, turned=False)
    assert (found, notes) == (packet, ())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("attribute", [False, True])
@pytest.mark.parametrize("where", ["BESIDES", "PLACES", "THUMBNAILS"])
def test_every_name_of_what_goes(where, attribute, turned):
    for uri, name in getattr(xmp, where):
        example = b"p:" + NAMES.get(name, b"Any")
        said = example + b'="1"' if attribute else b"z:z='1'"
        inside = b"" if attribute else b"<%s><rdf:Seq>1</rdf:Seq></%s>" % (example, example)
        packet = (
            RDF
            + b'<rdf:Description xmlns:p="%s" %s>%s<o:stays/></rdf:Description>' % (uri, said, inside)
            + END
        )
        found, notes = xmp.corrected(packet, 4, 4, turned)
        gone = where != "PLACES" or turned
        assert (example not in found) == gone and b"<o:stays/>" in found
        assert bool(notes) == (gone and where != "THUMBNAILS")


NAMES = {
    xmp.BESIDES[0][1]: b"MotionPhotoVersion",
    rb"(?:MotionPhoto|OLivePhoto|VideoLength)\w*": b"VideoLength",
    rb"XMPMeta": b"XMPMeta",
    rb"Thumbnails": b"Thumbnails",
    rb"Regions": b"Regions",
    rb"RegionInfo": b"RegionInfo",
    rb"(?:Cropped|Full|Largest)\w*": b"FullPanoWidthPixels",
}


def test_xmp_of_inks():
    packet = RDF + (
        b'<rdf:Description xmlns:p="http://ns.adobe.com/photoshop/1.0/" p:ColorMode="4"'
        b' p:ICCProfile="FOGRA39" p:City="Kyiv"/>' + END
    )
    cmyk = Image.fromarray(smooth()).convert("CMYK")
    photo = decode(pillow("JPEG", cmyk, xmp=packet))
    assert photo.metadata["xmp-data"] == packet.replace(b'"4" p:ICCProfile="FOGRA39"', b'"3"')


def test_xmp_edits_take_time_that_grows_with_the_packet():
    uri = xmp.BESIDES[0][0]
    for part in (b"<G:MotionPhoto>", b"<G:MotionPhoto", b' G:MotionPhoto="', b" ", b"xmlns:G=", b"<", b'"'):
        packet = b'<x xmlns:G="' + uri + b'">' + part * (2**21 // len(part))
        began = time.process_time()
        xmp.corrected(packet, 4, 4, turned=True)
        xmp.split(packet)
        xmp.extended_by(packet)
        assert time.process_time() - began < 3, part


def extended(packet: bytes, extension: bytes, length: int | None = None, keep: slice = slice(None)) -> bytes:
    """A JPEG with XMP in two parts, the second in segments of 60,000 bytes, in any order."""
    guid = hashlib.md5(extension).hexdigest().upper().encode()
    head = jpeg.MORE_XMP + guid + struct.pack(">I", length or len(extension))
    parts = [
        jpeg.segment(0xE1, head + struct.pack(">I", at) + extension[at : at + 60_000])
        for at in range(0, len(extension), 60_000)
    ]
    return jpeg_of(jpeg.segment(0xE1, jpeg.XMP + packet % guid), *parts[::-1][keep])


def test_both_parts_of_xmp():
    packet = (
        RDF + b'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
        b' xmpNote:HasExtendedXMP="%s" a:b="c" xmlns:a="a:"/>' + END
    )
    long = b"long " * 30_000
    extension = (
        RDF + b'<rdf:Description rdf:about="" xmlns:d="d:"><d:e>' + long + b"</d:e></rdf:Description>" + END
    )
    photo = decode(extended(packet, extension))
    whole = photo.metadata["xmp-data"]
    assert photo.notes == () and b'a:b="c"' in whole and long in whole and b"HasExtended" not in whole
    ElementTree.fromstring(whole)
    for kind in ALL:
        data, notes = encode(photo, kind)
        assert notes == () and long in decode(data).metadata["xmp-data"]
    for broken in (
        extended(packet, extension, keep=slice(1, None)),
        extended(packet, extension, keep=slice(0, -1)),
        extended(packet, extension, length=2**32 - 1),
        extended(packet, extension.replace(b"rdf:RDF", b"rdf:XYZ")),
    ):
        photo = decode(broken)
        assert photo.notes == ("damaged second part of XMP left out",)
        assert b'a:b="c"' in photo.metadata["xmp-data"] and b"HasExtended" not in photo.metadata["xmp-data"]


@pytest.mark.parametrize("attribute", [False, True])
def test_long_xmp_is_split_as_adobe_says(attribute):
    value = b"long " * 30_000
    own = (
        b' d:e="' + value + b'"/>' if attribute else b"><d:e>" + value + b"</d:e><d:empty/></rdf:Description>"
    )
    packet = RDF + b'<rdf:Description rdf:about="u:1" xmlns:d="d:" d:small="1"' + own + END
    first, second = xmp.split(packet)
    assert len(first) <= xmp.MOST_STANDARD and value not in first and b'd:small="1"' in first
    assert xmp.extended_by(first) == hashlib.md5(second).hexdigest().upper().encode()
    for part in (first, second):
        [description] = ElementTree.fromstring(part)[0]
        assert description.attrib[f"{{{xmp.RDF}}}about"] == "u:1"
    assert value in second and b"small" not in second
    for odd in (b"not xml" * 20_000, RDF + value + END, b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + packet):
        [note] = encode(photo_of(xmp_data=odd), "jpeg")[1]
        assert note == f"XMP of {len(odd):,} bytes left out, too long for JPEG"
    padded = XMP.replace(b"<?xpacket end", b" " * 70_000 + b"<?xpacket end") % b"here"
    short, none = xmp.split(padded)
    assert none == b"" and short == XMP % b"here"


# PNG


def test_chunks_behind_the_pixels_count():
    tag = Image.Exif()
    tag[ORIENTATION] = 6
    added = chunk(b"eXIf", tag.tobytes()[6:]) + chunk(b"iTXt", png.XMP + bytes(4) + XMP % b"behind")
    added += chunk(b"tEXt", b"Title\0behind")
    plain = pillow("PNG", smooth())
    photo = decode(plain[:-12] + added + plain[-12:])
    assert np.array_equal(photo.rgb, np.rot90(smooth(), -1)) and photo.notes == ()
    data, _ = encode(photo, "png")
    assert data.count(b"behind") == 2 and decode(data).rgb.shape == photo.rgb.shape


def test_packed_xmp_and_bombs():
    packet = XMP % b"packed"
    packed = chunk(b"iTXt", png.XMP + b"\1\0\0\0" + zlib.compress(packet))
    assert decode(with_chunks(pillow("PNG", smooth()), packed)).metadata["xmp-data"] == packet
    bomb = zlib.compress(bytes(2**25), 9)
    for kind, body in (
        (b"zTXt", b"Comment\0\0" + bomb),
        (b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        (b"iTXt", png.XMP + b"\1\0\0\0" + bomb),
        (b"zTXt", b"Comment\0\0damaged"),
    ):
        photo = decode(with_chunks(pillow("PNG", smooth()), chunk(kind, body) + chunk(b"tEXt", b"a\0b")))
        assert len(photo.notes) == 1 and "left out" in photo.notes[0]
        data, _ = encode(photo, "png")
        assert body not in data and (b"tEXt", b"a\0b") in list(chunks(data))


# JPEG, GIF


def test_comments():
    comments = (b"first", "zweiter größer".encode(), b"caf\xe9\0")
    photo = decode(jpeg_of(*(jpeg.segment(0xFE, comment) for comment in comments)))
    assert photo.metadata["comments"] == comments
    assert decode(encode(photo, "jpeg")[0]).metadata["comments"] == comments
    data, notes = encode(photo, "png")
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.text["Comment"] == "café" and notes == ()  # the last of three
    assert "größer".encode() in data
    long = photo_of(comments=(b"x" * 100_000,))
    assert b"".join(decode(encode(long, "jpeg")[0]).metadata["comments"]) == b"x" * 100_000
    gif = pillow("GIF", smooth(), comment=b"of a GIF")
    assert decode(gif).metadata["comments"] == (b"of a GIF",)
    assert (
        decode(
            gif[:-1] + b"\x21\xff\x0bXMP DataXMP" + XMP % b"" + b"\1" + bytes(range(255, -1, -1)) + b"\0;"
        ).metadata["xmp-data"]
        == XMP % b""
    )
    in_blocks = b"\x21\xff\x0bXMP DataXMP" + b"".join(bytes((1, byte)) for byte in XMP % b"") + b"\0"
    first = gif.index(b"\x21\xfe")  # the comment
    assert decode(gif[:first] + in_blocks + gif[first:]).metadata["xmp-data"] == XMP % b""


def test_other_segments():
    own = jpeg.segment(0xE1, b"FLIR\0" + bytes(40)) + jpeg.segment(0xE0, b"II\x1a\0CIFF")
    writers = jpeg.segment(0xEC, b"Ducky\0\1\0\4\0\0\0d") + jpeg.segment(0xE0, b"JFXX\0\x10thumb")
    signature = jpeg.segment(0xEB, b"JP\0\1\0\0\0\1c2pa")
    photo = decode(jpeg_of(own, writers, signature))
    assert photo.metadata == {"jpeg-segments": own}
    assert photo.notes == ("content credentials, which were for the picture as it was, left out",)
    data, notes = encode(photo, "jpeg")
    assert own in data and notes == ()
    assert encode(photo, "png")[1] == ("other data of the JPEG left out (FLIR, II)",)


def test_what_stands_behind_the_picture_is_said():
    plain = pillow("JPEG", smooth())
    assert decode(plain + b"junk" + bytes(1000)).notes == ()
    assert decode(plain + bytes(10) + b"x" * 2000).notes == ("2,010 bytes behind the picture left out",)


def test_thumbnails_among_photoshops_resources_go():
    thumbnail = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 5) + b"thumb\0"
    blob = iptc.wrapped(kept.RECORDS) + thumbnail + kept.PATHS
    data, notes = encode(photo_of(iptc_data=blob), "jpeg")
    assert b"thumb" not in data and kept.PATHS in data and notes == ()
    assert iptc.bare(decode(data).metadata["iptc-data"]) == kept.RECORDS
    for broken in (blob[:-3], blob[: len(iptc.PHOTOSHOP) + 9], iptc.PHOTOSHOP + b"8BIM" + b"\xff" * 40):
        encode(photo_of(iptc_data=broken), "tiff")
    long = iptc.PHOTOSHOP + b"8BIM\x07\xd0\0\0" + struct.pack(">I", 100_000) + bytes(100_000)
    assert decode(encode(photo_of(iptc_data=long), "jpeg")[0]).metadata["iptc-data"] == long


def test_heic_keeps_what_it_says():
    pytest.importorskip("pillow_heif")
    photo = decode((HEIC / "plain.heic").read_bytes())
    for kind in ALL:
        data, _ = encode(photo, kind)
        assert b"Maker" in data and "xres" not in decode(data).metadata
