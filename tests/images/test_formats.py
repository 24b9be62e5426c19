"""What phones, cameras, scanners and programs put into files: kept, or said to be left out."""

import contextlib
import io
import struct
import sys
import time

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, PngImagePlugin

from helpers.malformed import HEIC, malformed, originals, pillow, smooth
from helpers.malformed import vips as by_vips
from maximir.errors import DamagedImage, TooLarge, UnsupportedImage
from maximir.images import KINDS, Photo, decode, encode
from maximir.images.codecs import decoders, jxl, raw, tiff, vips
from maximir.images.codecs.png import chunk, chunks, with_chunks
from maximir.images.metadata import ifd, profiles, xmp

SUFFIXES = [".png", ".jpg", ".webp", ".tif", ".avif"]
P3 = profiles.profile(profiles.by_numbers(12, 13), grey=False)
GREY_PROFILE = profiles.profile(profiles.Colours(gamma=1.8), grey=True)
# Largest difference after a round trip: JPEG and AVIF at quality 95.
NEAR = {"png": 0, "tiff": 0, "webp": 0, "jpeg": 8, "avif": 8}


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def apart(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype
    return int(np.abs(a.astype(int) - b).max())


def plain_jpeg(**options: object) -> bytes:
    return pillow("JPEG", smooth(), quality=95, subsampling=0, **options)


# All formats


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (63, 65), (64, 128), (129, 2)])
def test_sizes(kind, size):
    back = decode(encode(Photo(smooth(*size)), kind)[0])
    assert apart(back.rgb, smooth(*size)) <= NEAR[kind]


@pytest.mark.parametrize("kind", sorted(set(KINDS.values()) - {"jpeg"}))
def test_alpha(kind):
    alpha = smooth()[..., 1].copy()
    back = decode(encode(Photo(smooth(), alpha=alpha), kind)[0])
    assert apart(back.alpha, alpha) <= NEAR[kind]


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_wide_gamut_profiles_are_kept_and_odd_ones_are_not(kind):
    def kept(icc: bytes, grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
        rgb = np.repeat(smooth()[..., :1], 3, 2) if grey else smooth()
        data, notes = encode(Photo(rgb, grey, metadata={"icc-profile-data": icc}), kind)
        return decode(data).metadata.get("icc-profile-data"), notes

    assert kept(P3, False) == (P3, ())
    assert kept(P3 + b"\0\0", False) == (P3, ())
    holds_grey = kind not in ("webp", "avif")
    assert kept(GREY_PROFILE, True) == (
        (GREY_PROFILE, ()) if holds_grey else (None, ("colour profile for GRAY left out",))
    )
    assert kept(GREY_PROFILE, False) == (None, ("colour profile for GRAY left out",))
    for damaged in (P3[:-1], P3[:100], b"no profile" * 30):
        assert kept(damaged, False) == (None, ("damaged colour profile left out",))


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_the_thumbnail_of_the_unrestored_picture_goes(kind):
    exif, thumbnail = Image.Exif(), pillow("JPEG", smooth(8, 8))
    exif[271] = "Maker"
    blob = bytearray(exif.tobytes())
    base, at = len(b"Exif\0\0"), 8
    (count,) = struct.unpack_from(">H", blob, base + at)
    table = struct.pack(">H", 2)
    table += struct.pack(">HHII", 513, 4, 1, len(blob) - base + 30) + struct.pack(
        ">HHII", 514, 4, 1, len(thumbnail)
    )
    struct.pack_into(">I", blob, base + at + 2 + 12 * count, len(blob) - base)
    blob += table + bytes(4) + thumbnail
    photo = decode(plain_jpeg(exif=bytes(blob)))
    assert thumbnail in photo.metadata["exif-data"]
    data, notes = encode(photo, kind)
    assert thumbnail not in data and b"Maker" in data and notes == ()


def test_damaged_exif_is_left_out_and_said():
    whole = Image.Exif()
    whole[271] = "Maker"
    for kind in set(KINDS.values()):
        photo = Photo(smooth(), metadata={"exif-data": b"Exif\0\0" + bytes(40)})
        data, notes = encode(photo, kind)
        assert notes == ("damaged EXIF left out",) and decode(data).rgb.shape == smooth().shape
        for length in range(8, len(whole.tobytes()), 7):  # cut: what is whole of it stays
            assert decode(encode(Photo(smooth(), metadata={"exif-data": whole.tobytes()[:length]}), kind)[0])


def test_xmp_that_repeats_the_orientation_of_a_turned_picture():
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/><tiff:Orientation>6</tiff:Orientation>'
    )
    exif = Image.Exif()
    exif[274] = 6
    assert decode(plain_jpeg(xmp=packet, exif=exif)).metadata["xmp-data"] == packet.replace(b"6", b"1")
    assert decode(plain_jpeg(xmp=packet)).metadata["xmp-data"] == packet  # not turned


# PNG


def test_texts_are_kept_as_they_are():
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "café")  # Latin-1
    texts.add_text("Comment", "long " * 100, zip=True)
    texts.add_itxt("Author", "名前")
    photo = decode(pillow("PNG", smooth(), pnginfo=texts))
    data, notes = encode(photo, "png")
    with Image.open(io.BytesIO(data)) as image:
        assert image.text == {"Title": "café", "Comment": "long " * 100, "Author": "名前"} and notes == ()
    assert encode(photo, "tiff")[1] == ("the PNG's texts left out",)
    assert [kind for kind, _ in chunks(data)].count(b"tEXt") == 1


def test_names_of_texts_that_are_no_text():
    odd = chunk(b"tEXt", b"k\xec\0v\xec")
    photo = decode(with_chunks(pillow("PNG", smooth()), odd))
    assert odd in encode(photo, "png")[0]


def test_xmp_is_there_once():
    photo = Photo(smooth(), metadata={"xmp-data": b"<x:xmpmeta/>"})
    again = encode(decode(encode(photo, "png")[0]), "png")[0]
    assert again.count(b"XML:com.adobe.xmp") == 1


def test_texts_without_end_are_not_carried_along():
    data = with_chunks(pillow("PNG", smooth()), chunk(b"tEXt", b"k\0" + bytes(2**20)))
    assert "png-texts" not in decode(data).metadata


def gamma(value: int, *more: bytes) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value)) + b"".join(more)


@pytest.mark.parametrize(
    ("colours", "wanted"),
    [
        (gamma(45_455), None),
        (gamma(45_455, chunk(b"sRGB", b"\0")), None),
        (gamma(100_000, chunk(b"sRGB", b"\0")), None),
        (gamma(0), None),
        (gamma(100_000), profiles.Colours(gamma=1.0)),
        (chunk(b"cICP", b"\1\x0d\0\1"), None),
        (chunk(b"cICP", b"\x0c\x0d\0\1"), profiles.Colours(profiles.PRIMARIES[12])),
        (
            gamma(
                45_455,
                chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)),
            ),
            profiles.Colours(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.329)), 100_000 / 45_455),
        ),
        (gamma(45_455, chunk(b"cHRM", bytes(32))), None),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_colours_by_numbers_become_a_profile(colours, wanted, grey):
    data = with_chunks(pillow("PNG", smooth()[..., 0].copy() if grey else smooth()), colours)
    expect = None if wanted is None else profiles.profile(wanted, grey=grey)
    back = decode(encode(decode(data), "png")[0])
    assert back.metadata.get("icc-profile-data") == expect


def test_profiles_by_numbers_are_right():
    def to_srgb(icc: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(pillow("PNG", smooth()))) as image:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            return np.asarray(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB")))

    p3 = pyvips.Image.profile_load("p3")
    assert apart(to_srgb(P3), to_srgb(bytes(p3))) <= 1
    assert apart(to_srgb(profiles.profile(profiles.Colours(), grey=False)), smooth()) <= 1


def test_hdr_is_kept_in_png_and_refused_elsewhere():
    light = chunk(b"mDCV", bytes(range(24))) + chunk(b"cLLI", bytes(8))
    photo = decode(with_chunks(pillow("PNG", smooth()), chunk(b"cICP", b"\x09\x10\0\1") + light))
    data, _ = encode(photo, "png")
    assert light in data
    assert (b"cICP", b"\x09\x10\0\1") in list(chunks(data))
    with pytest.raises(
        UnsupportedImage, match=r"HDR colours \(PQ\) cannot be written as AVIF; write PNG instead"
    ):
        encode(photo, "avif")


def test_odd_pngs():
    image = Image.fromarray(smooth())
    transparent = decode(pillow("PNG", image, transparency=tuple(smooth()[3, 4].tolist())))
    assert transparent.alpha[3, 4] == 0 and transparent.alpha.max() == 255
    grey = decode(pillow("PNG", image.convert("L"), transparency=int(np.asarray(image.convert("L"))[0, 0])))
    assert grey.grey and grey.alpha[0, 0] == 0
    for options in ({"interlace": True}, {"bitdepth": 4, "palette": True}):
        back = decode(by_vips(".png", np.round(smooth() / 85).astype(np.uint8) * 85, **options))
        assert apart(back.rgb, np.round(smooth() / 85).astype(np.uint8) * 85) <= (
            40 if "palette" in options else 0
        )
    low = with_chunks(pillow("PNG", smooth()), chunk(b"sBIT", b"\5\6\5"))  # bits that meant something once
    assert apart(decode(low).rgb, smooth()) == 0
    frames = {"save_all": True, "append_images": [Image.fromarray(smooth()[::-1])]}
    assert decode(pillow("PNG", smooth(), **frames)).notes == ("first of 2 frames",)


# JPEG


def test_several_pictures_in_a_jpeg():
    several = {"save_all": True, "append_images": [Image.fromarray(smooth()[::-1])]}
    mpo = pillow("MPO", smooth(), **several)
    assert decode(mpo).notes == ("first of 2 pictures",)
    thumbnail = bytearray(mpo)  # the camera's large thumbnail is not worth a word
    second = mpo.index(b"MPF\0")
    at = mpo.index(struct.pack("<HHI", 0xB002, 7, 32), second)
    (where,) = struct.unpack_from("<I", mpo, at + 8)
    struct.pack_into("<I", thumbnail, second + 4 + where + 16, 0x010002)
    assert decode(bytes(thumbnail)).notes == ()
    ultra = pillow("MPO", smooth(), xmp=b'<x:xmpmeta hdrgm:Version="1.0"/>', **several)
    assert decode(ultra).notes == ("gain map for HDR left out", xmp.BESIDES_GONE)


def test_motion_photos():
    packet = b'<x:xmpmeta GCamera:MotionPhoto="1"/>'
    video = struct.pack(">I4s4s", 24, b"ftyp", b"mp42") + b"\1" * 5000
    photo = decode(plain_jpeg(xmp=packet) + video)
    assert photo.notes == ("video left out", xmp.BESIDES_GONE)
    assert photo.metadata["xmp-data"] == b"<x:xmpmeta/>"
    assert decode(plain_jpeg(xmp=packet)).notes == (xmp.BESIDES_GONE,)
    [note] = decode(plain_jpeg() + video).notes
    assert note.endswith("bytes behind the picture left out")


def test_the_profile_of_cmyk_is_used():
    inks = np.dstack([smooth(), smooth()[..., 0] // 2])
    press = bytes(pyvips.Image.profile_load("cmyk"))
    image = Image.frombytes("CMYK", inks.shape[1::-1], np.ascontiguousarray(inks).tobytes())
    source = ImageCms.ImageCmsProfile(io.BytesIO(press))
    wanted = ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    for kind in ("TIFF", "JPEG"):
        photo = decode(pillow(kind, image, icc_profile=press, **({"quality": 100} if kind == "JPEG" else {})))
        assert np.abs(photo.rgb.astype(int) - np.asarray(wanted)).mean() < 2
        assert photo.notes == ("CMYK converted to sRGB",)


# TIFF


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"tile": True, "tile_width": 16, "tile_height": 16},
        {"compression": "lzw", "predictor": "horizontal"},
        {"compression": "packbits"},
        {"miniswhite": True},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs(options, dtype):
    pixels = noise(40, 56, 1 if "miniswhite" in options else 3, dtype=dtype)
    data = by_vips(
        ".tif",
        pixels,
        {1: {1: "b-w", 3: "srgb"}, 2: {1: "grey16", 3: "rgb16"}}[pixels.itemsize][pixels.shape[2]],
        **options,
    )
    assert apart(decode(data).rgb, np.broadcast_to(pixels, (40, 56, 3))) == 0


def directory(*fields: tuple[int, int, int, int], order: str = "<", following: int = 0) -> bytes:
    body = struct.pack(order + "H", len(fields))
    for tag, kind, count, value in sorted(fields):
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        body += struct.pack(order + "HHI", tag, kind, count) + packed
    return body + struct.pack(order + "I", following)


def bare_tiff(planes: int, photometric: int, subfiles: tuple[int, ...] = (0,)) -> bytes:
    """Pages of 8 × 4 pixels, each sample its channel's number times 40, planes apart."""
    pixels = b"".join(bytes([40 * (k + 1)]) * 32 for k in range(planes))
    data = b"II*\0" + struct.pack("<I", 8 + 4 * 4 * planes + len(pixels))
    tables = struct.pack(
        "<8I", *[8 + 32 * planes * 0 + 4 * 4 * planes + 32 * k for k in range(planes)], *[0] * (8 - planes)
    )
    offsets, counts, bits = 8, 8 + 4 * planes, 8 + 8 * planes
    head = (
        tables[: 4 * planes]
        + struct.pack(f"<{planes}I", *[32] * planes)
        + struct.pack(f"<{planes}H", *[8] * planes)
    )
    head += bytes(4 * 4 * planes - len(head))
    body, at = head + pixels, 8 + 4 * 4 * planes + len(pixels)
    for number, subfile in enumerate(subfiles):
        fields = [
            (254, 4, 1, subfile),
            (256, 3, 1, 8),
            (257, 3, 1, 4),
            (259, 3, 1, 1),
            (262, 3, 1, photometric),
        ]
        fields += [
            (273, 4, planes, offsets if planes > 1 else offsets + 16),
            (277, 3, 1, planes),
            (278, 3, 1, 4),
        ]
        fields += [(279, 4, planes, counts if planes > 1 else 32), (284, 3, 1, 2)]
        if planes > 2:
            fields.append((258, 3, planes, bits))
        else:
            fields.append((258, 3, 1, 8))
        length = 2 + 12 * len(fields) + 4
        body += directory(*fields, following=at + length if number + 1 < len(subfiles) else 0)
        at += length
    return data + body


def test_planes_and_pages():
    photo = decode(bare_tiff(3, 2))
    assert photo.rgb.shape == (4, 8, 3) and photo.rgb[0, 0].tolist() == [40, 80, 120]
    assert decode(bare_tiff(1, 1)).grey
    with pytest.raises(UnsupportedImage, match="YCbCr in planes or without"):  # libvips takes it for RGB
        decode(bare_tiff(3, 6))
    luma_first = Image.new("YCbCr", (8, 4), (80, 90, 200))
    for compression in (None, "tiff_lzw"):
        with pytest.raises(UnsupportedImage, match="YCbCr in planes or without"):
            decode(pillow("TIFF", luma_first, compression=compression))
    by_jpeg = decode(pillow("TIFF", luma_first, compression="jpeg")).rgb
    assert apart(by_jpeg, np.full((4, 8, 3), (181, 42, 13), np.uint8)) <= 1
    with pytest.raises(UnsupportedImage, match="the TIFF has 2 pages; save each as its own file"):
        decode(bare_tiff(3, 2, (0, 0)))
    assert decode(bare_tiff(3, 2, (0, 1))).rgb[0, 0].tolist() == [40, 80, 120]  # a smaller copy of it


def test_colours_that_were_multiplied_by_alpha():
    plain = bytearray(by_vips(".tif", np.full((4, 4, 4), (50, 100, 20, 100), np.uint8)))
    tag = plain.index(struct.pack("<HHI", 338, 3, 1))
    plain[tag + 8] = 1
    photo = decode(bytes(plain))
    assert photo.rgb[0, 0].tolist() == [128, 255, 51] and photo.alpha[0, 0] == 100


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_multiplied_by_alpha_do_not_darken(dtype):
    """libvips cuts off where it divides; what is stored comes back, however often it is read and written."""
    alpha = np.array([1, 2, 100, 161, 254, 255])[:, None] * (np.iinfo(dtype).max // 255)
    colours = alpha * np.linspace(0, 1, 50)[None] // 1
    stored = np.dstack([colours, colours, colours, np.broadcast_to(alpha, colours.shape)]).astype(dtype)
    photo = Photo(stored[..., :3], alpha=stored[..., 3], metadata={"extra-sample": tiff.UNSPECIFIED})
    data = bytearray(encode(photo, "tiff")[0])
    data[data.index(struct.pack("<HHI", 338, 3, 1)) + 8] = tiff.ASSOCIATED
    once = encode(decode(bytes(data)), "tiff")[0]
    once = once.replace(struct.pack("<HHIH", 338, 3, 1, 1), struct.pack("<HHIH", 338, 3, 1, 0))
    assert np.array_equal(decode(once).rgb, stored[..., :3])


def small_tiff(*pictures: dict[int, int], below: dict[int, int] | None = None, make: bytes = b"") -> bytes:
    """Grey pictures with these fields (TIFF's tags) beside the usual ones, and one below the first."""
    data = bytearray(b"II*\0" + bytes(4))

    def picture(fields: dict[int, int], following: int) -> int:
        width, height = fields.get(256, 8), fields.get(257, 4)
        at = len(data)
        data.extend(bytes(width * height))
        usual = {
            256: width,
            257: height,
            258: 8,
            259: 1,
            262: 1,
            273: at,
            277: 1,
            278: height,
            279: width * height,
        }
        entries = [(tag, 4, 1, value) for tag, value in (usual | fields).items()]
        if make and not following:
            entries.append((271, 2, len(make), len(data)))
            data.extend(make)
        data.extend(bytes(len(data) % 2))
        table = directory(*entries, following=following)
        data.extend(table)
        return len(data) - len(table)

    at = picture(below, 1) if below else 0
    struct.pack_into("<I", data, len(data) - 4, 0)
    start = 0
    for number, fields in reversed(list(enumerate(pictures))):
        start = picture(fields | ({330: at} if at and number == 0 else {}), start)
    struct.pack_into("<I", data, 4, start)
    return bytes(data)


PREVIEW = {254: 1, 256: 8, 257: 4}
MAIN = {256: 80, 257: 40}
SENSOR = MAIN | {262: 32803}


def test_a_preview_is_not_the_picture():
    assert decode(small_tiff(MAIN)).rgb.shape == (40, 80, 3)
    assert decode(small_tiff(MAIN, PREVIEW)).rgb.shape == (40, 80, 3)
    assert decode(small_tiff(MAIN, below=PREVIEW)).rgb.shape == (40, 80, 3)
    assert decode(small_tiff(PREVIEW)).rgb.shape == (4, 8, 3)  # the only one
    assert decode(small_tiff(MAIN | {254: 1})).rgb.shape == (40, 80, 3)
    for data in (
        small_tiff(PREVIEW, MAIN),
        small_tiff({255: 2}, MAIN),
        small_tiff(PREVIEW, below=MAIN),
        small_tiff({}, below=MAIN),
        small_tiff(PREVIEW, below=MAIN | {254: 1}),
    ):
        with pytest.raises(UnsupportedImage, match=r"begins with a preview of 8x4 pixels; save .* of 80x40"):
            decode(data)
    with pytest.raises(UnsupportedImage, match="2 pages"):
        decode(small_tiff({}, MAIN))
    assert decode(small_tiff(MAIN, PREVIEW)).notes == ("first of 2 pictures",)
    assert decode(small_tiff(MAIN, MAIN | {254: 4})).notes == ("first of 2 pictures",)


@pytest.mark.parametrize(
    ("called", "data"),
    [
        ("DNG", small_tiff(PREVIEW | {50706: 0x0401}, below=SENSOR)),
        ("DNG", small_tiff(MAIN | {50706: 0x0401})),
        ("Nikon NEF", small_tiff(PREVIEW, below=SENSOR, make=b"NIKON CORPORATION\0")),
        ("Sony ARW", small_tiff(PREVIEW, below=MAIN | {262: 34892}, make=b"SONY\0")),
        ("sensor data in a TIFF", small_tiff(SENSOR)),
        ("sensor data in a TIFF", small_tiff(PREVIEW, SENSOR)),
        ("Canon CR2", b"II*\0\x10\0\0\0CR\2\0" + small_tiff(MAIN)),
        ("Phase One IIQ", b"II*\0\x10\0\0\0IIIICwaR" + bytes(40)),
        ("Canon CR3", struct.pack(">I8s", 24, b"ftypcrx ") + bytes(40)),
        ("Fujifilm RAF", b"FUJIFILMCCD-RAW 0201" + bytes(80)),
        ("Panasonic RW2", b"IIU\0" + small_tiff(MAIN)[4:]),
        ("Olympus ORF", b"IIRO" + small_tiff(MAIN)[4:]),
        ("Olympus ORF", b"MMOR" + bytes(40)),
        ("Sigma X3F", b"FOVb" + bytes(40)),
        ("Minolta MRW", b"\0MRM" + bytes(40)),
        ("Canon CRW", b"II\x1a\0\0\0HEAPCCDR" + bytes(40)),
    ],
)
def test_raw_files_are_called_so_by_content(called, data):
    assert raw.name(data) == called


def test_pixels_are_no_marks_of_raw_files():
    for value in (ord("I"), ord("M")):
        flat = np.full((40, 56, 3), value, np.uint8)
        data = by_vips(".tif", flat)
        assert data[8:12] == bytes([value]) * 4 and apart(decode(data).rgb, flat) == 0


def test_directories_that_go_in_circles_cost_little():
    data = bytearray(small_tiff(*[MAIN] * 900))
    for at in range(8, len(data) - 2000, 3000):  # many that begin within others
        struct.pack_into("<H", data, at, 65_535)
    began = time.perf_counter()
    with contextlib.suppress(DamagedImage, UnsupportedImage):
        decode(bytes(data))
    assert time.perf_counter() - began < 3


def extra_samples(data: bytes) -> tuple[int, ...]:
    reader = ifd.Reader(data)
    return ifd.numbers(reader, reader.directory(reader.first())[0], 338)[338]


def with_extra(kind: int | None, pixels: np.ndarray) -> bytes:
    """A TIFF whose last channel is of this kind; None: it does not say."""
    space = {2: "b-w", 4: "srgb" if pixels.dtype == np.uint8 else "rgb16"}[pixels.shape[2]]
    data = bytearray(by_vips(".tif", pixels, space))
    tag = data.index(struct.pack("<HHI", 338, 3, 1))
    data[tag + 8] = kind or 0
    if kind is None:
        struct.pack_into("<H", data, tag, 65_000)
    return bytes(data)


@pytest.mark.parametrize("kind", [0, None])
@pytest.mark.parametrize("shape", [(40, 56, 4), (40, 56, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_of_scanners_are_no_alpha(kind, shape, dtype):
    pixels = noise(*shape, dtype=dtype)
    if shape[2] == 2 and dtype == np.uint16:
        return
    photo = decode(with_extra(kind, pixels))
    assert apart(photo.alpha, pixels[..., -1]) == 0
    data, notes = encode(photo, "tiff")
    assert notes == () and extra_samples(data) == (0,)
    assert apart(decode(data).alpha, pixels[..., -1]) == 0 and apart(decode(data).rgb, photo.rgb) == 0
    for other in ("png", "jpeg", "webp", "avif"):
        data, notes = encode(photo, other)
        assert "the TIFF's extra channel, which is no alpha, left out" in notes
        assert decode(data).alpha is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_of_tiffs_stays_of_its_kind(dtype):
    full = np.iinfo(dtype).max
    pixels = noise(40, 56, 4, dtype=dtype)
    pixels[..., :3] = pixels[..., :3].astype(np.uint64) * pixels[..., 3:] // full
    photo = decode(with_extra(1, pixels))
    data, _ = encode(photo, "tiff")
    assert extra_samples(data) == (1,)
    assert apart(decode(data).alpha, pixels[..., 3]) == 0
    stored = bytearray(data)
    stored[stored.rindex(struct.pack("<HHI", 338, 3, 1)) + 8] = 2  # to see what the samples are
    assert apart(decode(bytes(stored)).rgb, pixels[..., :3]) <= 1
    again, _ = encode(decode(data), "tiff")
    assert (
        apart(decode(again).rgb[pixels[..., 3] > full // 8], decode(data).rgb[pixels[..., 3] > full // 8])
        <= 5
    )
    assert extra_samples(encode(decode(with_extra(2, pixels)), "tiff")[0]) == (2,)


def test_unusual_depths_are_called_so():
    twelve = bytearray(by_vips(".tif", smooth()[..., :1].copy(), "b-w"))
    tag = twelve.index(struct.pack("<HHI", 258, 3, 1))
    twelve[tag + 8] = 12
    with pytest.raises(UnsupportedImage, match="not supported"):
        decode(bytes(twelve))


# AVIF


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_keeps_10_and_12_bits(bits, monkeypatch):
    wide = noise(16, 24, 3, dtype=np.uint16)
    wide[0, 0], wide[0, 1] = 0, 65_535
    data = by_vips(".avif", decoders.packed(wide, bits), "rgb16", bitdepth=bits, lossless=True)
    photo = decode(data)
    assert photo.rgb.dtype == np.uint16 and photo.metadata["bits-per-sample"] == bits
    assert photo.rgb[0, 0].tolist() == [0] * 3 and photo.rgb[0, 1].tolist() == [65_535] * 3
    assert apart(photo.rgb, wide) <= 65_535 / (2**bits - 1) / 2 + 1
    smoothly = Photo(smooth().astype(np.uint16) * 257, metadata={"bits-per-sample": bits})
    back, notes = encode(smoothly, "avif")
    assert decode(back).metadata["bits-per-sample"] == bits and notes == ()
    assert apart(decode(back).rgb, smoothly.rgb) <= 8 * 257
    assert encode(Photo(smoothly.rgb), "avif")[1] == ("16 bit reduced to the 12 of AVIF",)
    monkeypatch.setitem(vips.OPTIONS, "avif", {"compression": "av1", "lossless": True})
    exact = decode(encode(Photo(wide, metadata={"bits-per-sample": bits}), "avif")[0])
    assert apart(exact.rgb, photo.rgb) == 0


@pytest.mark.parametrize("bits", [10, 12])
def test_few_bits_fill_the_range_and_come_back(bits):
    every = (np.arange(2**bits) << (16 - bits)).astype(np.uint16)
    assert np.array_equal(decoders.packed(decoders.unpacked(every, bits), bits), every)
    assert decoders.unpacked(every, bits)[[0, -1]].tolist() == [0, 65_535]


def test_grey_and_animated_avifs():
    exif = Image.Exif()
    exif[274] = 6
    grey = decode(pillow("AVIF", smooth()[..., 1].copy(), quality=95, exif=exif))
    assert grey.grey and apart(grey.rgb[..., 0], np.rot90(smooth()[..., 1], -1)) <= 8
    with Image.open(io.BytesIO(encode(grey, "png")[0])) as image:
        assert image.getexif().get(274) == 1
    frames = {"save_all": True, "append_images": [Image.fromarray(smooth()[::-1])], "quality": 95}
    photo = decode(pillow("AVIF", smooth(), **frames))
    assert photo.notes == ("first of 2 frames",) and np.abs(photo.rgb.astype(int) - smooth()).mean() < 3


def test_avif_with_colours_by_numbers():
    data = bytearray(by_vips(".avif", smooth(), lossless=True))
    at = data.index(b"colrnclx") + 8
    struct.pack_into(">HH", data, at, 12, 13)
    assert decode(bytes(data)).metadata["icc-profile-data"] == P3
    struct.pack_into(">HH", data, at, 9, 16)
    assert decode(bytes(data)).metadata["cicp"] == b"\x09\x10\0\1"


# BMP


def test_bmp():
    palette = Image.fromarray(smooth()).convert("P")
    assert apart(decode(pillow("BMP", smooth(), dpi=(300, 300))).rgb, smooth()) == 0
    assert decode(pillow("BMP", smooth(), dpi=(300, 300))).metadata["xres"] == pytest.approx(
        300 / 25.4, rel=0.01
    )
    assert apart(decode(pillow("BMP", palette)).rgb, np.asarray(palette.convert("RGB"))) == 0
    assert decode(pillow("BMP", smooth()[..., 0].copy())).grey
    with pytest.raises(DamagedImage, match="truncated"):
        decode(pillow("BMP", smooth())[:-50])


# HEIC


def heic_picture(height: int = 64, width: int = 96) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 3 + 30, x * 2 + 20, x + y + 40], -1).astype(np.uint8)


def heic_file(name: str) -> bytes:
    return (HEIC / f"{name}.heic").read_bytes()


def heic(name: str) -> Photo:
    pytest.importorskip("pillow_heif")
    return decode(heic_file(name))


def test_heic():
    photo = heic("plain")
    assert apart(photo.rgb, heic_picture()) <= 8 and photo.alpha is None and photo.notes == ()
    assert photo.metadata["icc-profile-data"] == P3 and b"Maker" in photo.metadata["exif-data"]
    assert b"x:xmpmeta" in photo.metadata["xmp-data"]
    with Image.open(io.BytesIO(encode(photo, "png")[0])) as image:
        assert image.getexif()[271] == "Maker" and image.info["icc_profile"] == P3


def test_heic_is_turned_once():
    photo = heic("turned")
    assert photo.rgb.shape == (96, 64, 3) and apart(photo.rgb, np.rot90(heic_picture(), -1)) <= 8
    with Image.open(io.BytesIO(encode(photo, "jpeg")[0])) as image:
        assert image.getexif().get(274) == 1 and image.size == (64, 96)


def test_heic_of_other_kinds():
    alpha, grey, ten, two = (heic(name) for name in ("alpha", "grey", "ten", "two"))
    assert apart(alpha.alpha, (np.mgrid[:64, :96][1] * 2).astype(np.uint8)) <= 8
    assert grey.grey and apart(grey.rgb[..., 0], heic_picture()[..., 0]) <= 8
    assert ten.rgb.dtype == np.uint16 and ten.metadata["bits-per-sample"] == 10
    assert apart(ten.rgb, heic_picture().astype(np.uint16) * 257) <= 8 * 257
    levels = decoders.unpacked((np.arange(1024) << 6).astype(np.uint16), 10)
    assert np.isin(ten.rgb, levels).all()
    assert two.notes == ("one of 2 pictures",) and apart(two.rgb, heic_picture()) <= 8


def test_heic_with_texts_that_are_not_utf8():
    pytest.importorskip("pillow_heif")
    data = heic_file("plain").replace(b"application/rdf", b"a\x80plication/rdf")
    assert apart(decode(data).rgb, heic_picture()) <= 8  # older libraries crash


def test_heic_pixels_are_ours():
    """Not in memory that the library has given back."""
    first = heic("plain")
    for _ in range(20):
        assert apart(heic("plain").rgb, first.rgb) == 0
    assert first.rgb.base is None or first.rgb.base.flags.owndata


# JPEG XL


def jxl_file(array: np.ndarray, **options: object) -> bytes:
    pytest.importorskip("pillow_jxl")
    return pillow("JXL", array, **options)


def test_jpeg_xl():
    exif = Image.Exif()
    exif[271], exif[282], exif[283], exif[296] = "Maker", 300.0, 300.0, 2
    packet = b"<x:xmpmeta/>"
    photo = decode(jxl_file(smooth(), lossless=True, exif=exif.tobytes(), xmp=packet, use_container=True))
    assert apart(photo.rgb, smooth()) == 0 and photo.notes == ()
    assert photo.metadata["xmp-data"] == packet and b"Maker" in photo.metadata["exif-data"]
    assert photo.metadata["xres"] == pytest.approx(300 / 25.4)
    assert "icc-profile-data" not in photo.metadata  # it says "sRGB", and no more
    rgba = np.dstack([smooth(), smooth()[..., 0]])
    assert apart(decode(jxl_file(rgba, lossless=True)).alpha, rgba[..., 3]) == 0
    grey = decode(jxl_file(smooth()[..., 0].copy(), lossless=True))
    assert grey.grey and apart(grey.rgb[..., 0], smooth()[..., 0]) == 0


def test_jpeg_xl_of_a_jpeg_is_that_jpeg():
    jxl_file(smooth())
    packed, jpeg = decode(originals()["jxl of jpeg"]), decode(originals()["jpeg"])
    assert apart(packed.rgb, jpeg.rgb) == 0 and packed.metadata == jpeg.metadata


class Bits:
    """A JPEG XL header, number by number."""

    def __init__(self) -> None:
        self.value = self.length = 0

    def put(self, *numbers: tuple[int, int]) -> "Bits":
        for value, width in numbers:
            self.value |= value << self.length
            self.length += width
        return self

    def file(self) -> bytes:
        return b"\xff\x0a" + self.value.to_bytes(self.length // 8 + 1, "little")


def test_jpeg_xl_headers():
    size = ((0, 1), (1, 2), (999, 13), (0, 3), (2, 2), (69_999, 18))
    assert jxl.header(Bits().put(*size, (1, 1)).file()) == (70_000, 1000, 8, False)
    wide = Bits().put((1, 1), (4, 5), (5, 3), (0, 1), (0, 1), (0, 1), (2, 2)).file()
    assert jxl.header(wide) == (71, 40, 12, False)  # 16 : 9
    boxed = (
        jxl.CONTAINER + struct.pack(">I4s", 12, b"ftyp") + b"jxl " + struct.pack(">I4s", 0, b"jxlc") + wide
    )
    assert jxl.header(boxed) == (71, 40, 12, False)
    ticks = ((0, 2), (0, 2), (0, 2), (0, 1))
    moving = ((1, 1), (4, 5), (1, 3), (0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (1, 1), *ticks, (1, 1), (1, 2))
    assert jxl.header(Bits().put(*moving).file()) == (40, 40, 16, True)
    far = jxl.CONTAINER + struct.pack(">I4sQ", 1, b"ftyp", 2**64 - 1)
    for broken in (b"\xff\x0a", jxl.CONTAINER, jxl.CONTAINER + bytes(8), boxed[:-5], far):
        with pytest.raises(DamagedImage):
            jxl.header(broken)


# What is not there


@pytest.mark.parametrize(
    ("module", "data"),
    [
        ("pillow_heif", heic_file("plain")),
        ("pillow_jxl", Bits().put((1, 1), (4, 5), (1, 3), (1, 1)).file() + bytes(40)),
    ],
)
def test_without_the_libraries_it_is_said_what_to_install(monkeypatch, module, data):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        UnsupportedImage, match=r"need more libraries; install them: pip install 'maximir\[formats\]'"
    ):
        decode(data)


def test_errors_say_of_what_kind_they_are(monkeypatch):
    whole = pillow("PNG", smooth())
    for data, kind in (
        (b"", DamagedImage),
        (whole[:-40], DamagedImage),
        (b"hello", UnsupportedImage),
        (b"P6 1 1 255 abc", UnsupportedImage),
        (by_vips(".tif", smooth().astype(np.float32), "srgb"), UnsupportedImage),
        (pillow("JPEG", smooth())[:-300], DamagedImage),
    ):
        with pytest.raises(kind):
            decode(data)
    with pytest.raises(UnsupportedImage, match="cannot write gif; use one of png jpeg webp tiff avif"):
        encode(Photo(smooth()), "gif")
    monkeypatch.setattr("maximir.images.reading.MAX_PIXELS", 100)
    with pytest.raises(TooLarge):
        decode(whole)


@pytest.mark.parametrize("name", ["heic plain", "heic ten", "jxl", "jxl lossy", "bmp", "avif animated"])
def test_truncated_files_are_refused(name):
    if name not in originals():
        pytest.skip("its library is not installed")
    data = originals()[name]
    for part in (0.05, 0.3, 0.6, 0.9):
        with pytest.raises((DamagedImage, UnsupportedImage)):
            decode(data[: int(len(data) * part)])


def test_kinds_by_content():
    files = {kind: encode(Photo(smooth()), kind)[0] for kind in set(KINDS.values())}
    files |= {"gif": pillow("GIF", smooth()), "bmp": pillow("BMP", smooth())}
    files["heic"] = heic_file("plain")
    assert {kind: decoders.kind_of(data) for kind, data in files.items()} == {kind: kind for kind in files}
    for nothing in (
        b"",
        b"BM",
        b"hello",
        b"RIFF1234WAVE",
        struct.pack(">I4s4s", 16, b"ftyp", b"mp42") + bytes(4),
    ):
        assert decoders.kind_of(nothing) is None


@pytest.mark.parametrize(
    ("seed", "kind"),
    [(1008, "png"), (10933, "avif 10 alpha")],  # a warning with bytes that are not UTF-8; an absurd size
)
def test_libraries_print_nothing(seed, kind, capfd):
    name, data = malformed(seed)
    assert name == kind
    with contextlib.suppress(DamagedImage, TooLarge):
        decode(data)
    assert capfd.readouterr() == ("", "")
