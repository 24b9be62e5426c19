"""Nothing of a photograph gets lost between files, and a bad one gives MaximirError and nothing worse."""

import errno
import io
import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from maximir.errors import MaximirError
from maximir.images import Photo, read, write

EXACT = (".png", ".tif", ".tiff")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>b</a></x:xmpmeta>'
MAKE, ORIENTATION, DATE, COPYRIGHT, EXIF_IFD, GPS_IFD = 271, 274, 306, 33432, 0x8769, 0x8825


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 4, x * 3, x + y], -1).astype(np.uint8)


def save(array: np.ndarray | Image.Image, path: Path, **options) -> Path:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def encoded(kind: str, array: np.ndarray | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(smooth() if array is None else array).save(buffer, kind, **options)
    return buffer.getvalue()


def camera_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE], exif[DATE], exif[ORIENTATION] = "Maker", "2020:01:02 03:04:05", orientation
    exif[COPYRIGHT] = "© Jörg".encode()
    exif.get_ifd(EXIF_IFD)[0x9003] = "2019:01:02 03:04:05"
    exif.get_ifd(EXIF_IFD)[0x829A] = 0.01
    exif.get_ifd(GPS_IFD)[2] = (10.0, 20.0, 30.0)
    return exif


def mode(photo: Photo) -> tuple[bool, bool]:
    return photo.grey, photo.alpha is not None


# Pixels


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(13, 17), (1, 1), (1, 7), (7, 1)])
def test_png_and_tiff_return_every_bit(tmp_path, suffix, dtype, has_alpha, grey, size):
    pixels = noise(*size, 4, dtype=dtype)
    rgb = np.repeat(pixels[..., :1], 3, 2) if grey else pixels[..., :3]
    write(Photo(rgb, grey, pixels[..., 3] if has_alpha else None), tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    assert back.rgb.dtype == dtype and mode(back) == (grey, has_alpha) and back.notes == ()
    assert np.array_equal(back.rgb, rgb) and back.rgb.flags.c_contiguous
    if has_alpha:
        assert back.alpha.dtype == dtype and np.array_equal(back.alpha, pixels[..., 3])


def test_webp_is_lossless_under_transparent_pixels_too(tmp_path):
    rgb, alpha = noise(9, 11, 3), np.zeros((9, 11), np.uint8)
    alpha[4:] = 200
    write(Photo(rgb, alpha=alpha), tmp_path / "a.webp")
    back = read(tmp_path / "a.webp")
    assert np.array_equal(back.rgb, rgb) and np.array_equal(back.alpha, alpha)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("pil_mode", "grey", "has_alpha"),
    [("1", True, False), ("L", True, False), ("LA", True, True), ("P", False, False), ("RGBA", False, True)],
)
def test_what_pillow_writes_is_read_alike(tmp_path, kind, pil_mode, grey, has_alpha):
    image = Image.fromarray(noise(9, 12, 4)).convert("RGB" if pil_mode in "1LP" else "RGBA").convert(pil_mode)
    photo = read(save(image, tmp_path / "a", format=kind))
    assert mode(photo) == (grey, has_alpha) and photo.rgb.dtype == np.uint8
    assert np.array_equal(photo.rgb, np.asarray(image.convert("RGB")))


def test_a_palette_with_a_transparent_colour_has_alpha(tmp_path):
    image = Image.fromarray(smooth()).convert("P")
    photo = read(save(image, tmp_path / "a.png", transparency=int(np.asarray(image)[0, 0])))
    assert photo.alpha[0, 0] == 0 and photo.alpha.max() == 255


def test_grey_jpeg_stays_grey(tmp_path):
    write(read(save(smooth()[..., 0], tmp_path / "a.jpg")), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.mode == "L"
    assert read(tmp_path / "b.jpg").grey


def test_jpeg_is_fine_and_has_full_chroma(tmp_path):
    write(Photo(smooth()), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
        assert image.quantization[0][0] == 2  # quality 95's first step; 16 at quality 50
    assert np.abs(read(tmp_path / "a.jpg").rgb.astype(int) - smooth()).max() <= 8


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_16_bits_are_rounded_to_8(tmp_path, suffix):
    values = np.array([0, 128, 129, 257, 385, 386, 32767, 65406, 65407, 65535], np.uint16)
    rgb = np.broadcast_to(values[:, None, None, None], (10, 8, 8, 3)).reshape(80, 8, 3)
    write(Photo(rgb), tmp_path / f"a{suffix}")
    got = read(tmp_path / f"a{suffix}").rgb[::8, 0, 0]
    assert np.array_equal(got, np.rint(values / 257).astype(np.uint8))


def test_jpeg_refuses_transparency(tmp_path):
    with pytest.raises(MaximirError, match="PNG, WebP or TIFF"):
        write(Photo(smooth(), alpha=smooth()[..., 0]), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("profile", [None, b"no profile" * 30])
def test_cmyk_becomes_srgb(tmp_path, kind, profile):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0] = 255  # cyan above, bare paper below
    path = save(
        Image.frombytes("CMYK", (16, 16), inks.tobytes()), tmp_path / "a", format=kind, icc_profile=profile
    )
    photo = read(path)
    assert photo.notes == ("CMYK converted to sRGB",) and mode(photo) == (False, False)
    (r, g, b), paper = photo.rgb[2, 8].astype(int), photo.rgb[14, 8]
    assert r < 80 and min(g, b) > r + 60 and paper.min() > 235
    assert b"RGB XYZ " in photo.metadata["icc-profile-data"]


def test_cmyk_keeps_16_bits_and_alpha(tmp_path):
    for dtype, bands in ((np.uint16, 4), (np.uint8, 5)):
        inks = noise(5, 6, bands, dtype=dtype)
        pyvips.Image.new_from_array(inks).copy(interpretation="cmyk").write_to_file(tmp_path / "a.tif")
        photo = read(tmp_path / "a.tif")
        assert photo.rgb.dtype == dtype
        assert bands == 4 or np.array_equal(photo.alpha, inks[..., 4])


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_of_many_frames(tmp_path, kind):
    frames = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (10, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = read(
        save(frames[0], tmp_path / "a", format=kind, save_all=True, append_images=frames[1:], **options)
    )
    assert photo.notes == ("first of 2 frames",) and photo.rgb.shape == (8, 8, 3) and (photo.rgb == 10).all()


def test_avif_is_read(tmp_path):
    assert np.abs(read(save(smooth(), tmp_path / "a.avif", quality=95)).rgb.astype(int) - smooth()).mean() < 4


def test_the_content_decides_not_the_suffix(tmp_path):
    assert np.array_equal(read(save(smooth(), tmp_path / "a.jpg", format="PNG")).rgb, smooth())


# Metadata


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_once(tmp_path, source, orientation):
    stored = smooth(16, 24)
    options = {
        ".jpg": {"quality": 100, "subsampling": 0},
        ".webp": {"lossless": True},
        ".avif": {"quality": 100, "subsampling": "4:4:4"},
    }.get(source, {})
    path = save(stored, tmp_path / f"a{source}", exif=camera_exif(orientation), **options)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    photo = read(path)
    assert photo.rgb.shape == upright.shape and np.abs(photo.rgb.astype(int) - upright).max() <= 4
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        write(photo, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.getexif().get(ORIENTATION, 1) == 1  # in AVIF the container has it
        assert np.abs(read(tmp_path / f"b{suffix}").rgb.astype(int) - upright).max() <= 8


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_what_the_file_says_survives(tmp_path, source, target):
    exif = camera_exif(6)
    exif[282] = exif[283] = 240.0
    exif[296] = 2
    options = {} if source in (".webp", ".avif") else {"dpi": (240, 240)}
    has_xmp = {"xmp": XMP}
    kinds = {".jpg": has_xmp, ".webp": has_xmp, ".avif": has_xmp, ".tif": {"tiffinfo": {700: XMP}}}
    options |= kinds.get(source, {})
    if source == ".tif":  # Pillow writes either the one or the other
        for tag, value in exif.items():
            options["tiffinfo"].setdefault(tag, value)
        options["tiffinfo"][EXIF_IFD] = exif.get_ifd(EXIF_IFD)
        options["tiffinfo"][GPS_IFD] = exif.get_ifd(GPS_IFD)
    else:
        options["exif"] = exif
    write(read(save(smooth(), tmp_path / f"a{source}", icc_profile=ICC, **options)), tmp_path / f"b{target}")

    with Image.open(tmp_path / f"b{target}") as image:
        got = image.getexif()
        assert image.info["icc_profile"] == ICC
        assert got[MAKE] == "Maker" and got[DATE] == "2020:01:02 03:04:05"
        assert got[282] == pytest.approx(240, abs=0.01)
        assert got.get_ifd(EXIF_IFD)[0x9003] == "2019:01:02 03:04:05"
        assert got.get_ifd(EXIF_IFD)[0x829A] == pytest.approx(0.01)
        assert got.get_ifd(GPS_IFD)[2] == (10.0, 20.0, 30.0)
    data = (tmp_path / f"b{target}").read_bytes()
    assert "© Jörg".encode() in data
    kept = read(tmp_path / f"b{target}").metadata
    assert kept["icc-profile-data"] == ICC and (source == ".png" or kept["xmp-data"] == XMP)


def test_iptc_survives_where_it_can(tmp_path):
    bare = b"\x1c\x02\x78\x00\x05hello"
    wrapped = (
        b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(bare)) + bare + bytes(len(bare) % 2)
    )
    path = b"8BIM\x07\xd0\0\0" + struct.pack(">I", 4) + b"path"
    for blob, suffix, back in (
        (wrapped, "jpg", wrapped),
        (bare, "jpg", wrapped),
        (bare, "tif", bare),
        (wrapped + path, "tif", wrapped + path),
        (wrapped + path, "jpg", wrapped + path),
    ):
        assert write(Photo(smooth(), metadata={"iptc-data": blob}), tmp_path / f"a.{suffix}") == ()
        assert read(tmp_path / f"a.{suffix}").metadata["iptc-data"] == back
    for suffix in ("png", "webp", "avif"):
        assert write(Photo(smooth(), metadata={"iptc-data": bare}), tmp_path / f"a.{suffix}") == (
            "IPTC left out",
        )


def test_big_endian_tiff_exif(tmp_path):
    value = b"Maker\0"
    fields = [
        (256, 3, 1, b"\0\2\0\0"),
        (257, 3, 1, b"\0\1\0\0"),
        (258, 3, 1, b"\0\x08\0\0"),
        (262, 3, 1, b"\0\1\0\0"),
    ]
    fields += [(271, 2, len(value), struct.pack(">I", 8)), (273, 4, 1, struct.pack(">I", 14))]
    fields += [(277, 3, 1, b"\0\1\0\0"), (278, 3, 1, b"\0\1\0\0"), (279, 4, 1, struct.pack(">I", 2))]
    table = struct.pack(">H", len(fields)) + b"".join(struct.pack(">HHI4s", *f) for f in fields)
    (tmp_path / "b.tif").write_bytes(
        b"MM\0*" + struct.pack(">I", 16) + value + b"\x05\x06" + table + bytes(4)
    )
    photo = read(tmp_path / "b.tif")
    assert photo.grey and photo.rgb[0, :, 0].tolist() == [5, 6] and b"Maker" in photo.metadata["exif-data"]


def test_nothing_is_invented(tmp_path):
    for suffix in (".jpg", ".webp", ".png"):
        write(Photo(smooth()), tmp_path / f"a{suffix}")
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert not image.getexif() and "icc_profile" not in image.info


# Bad files


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, idat, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff_of(cast: str) -> bytes:
    return pyvips.Image.new_from_array(smooth()).cast(cast).tiffsave_buffer()


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "not an image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image"),
    "ppm": (b"P6 1 1 255 abc", "not an image"),
    "magic only": (b"\x89PNG\r\n\x1a\n", "damaged|not an image"),
    "png bomb": (png_header(50_000, 50_000), "50000x50000 is over the limit"),
    "no width": (png_header(0, 5), "damaged|no pixels"),
    "float": (tiff_of("float"), "float samples"),
    "int": (tiff_of("int"), "int samples"),
    "complex": (tiff_of("complex"), "samples"),
    "signed": (tiff_of("short"), "short samples"),
    "lab": (pyvips.Image.new_from_array(smooth()).colourspace("labs").tiffsave_buffer(), "not supported"),
    "channels": (pyvips.Image.new_from_array(noise(4, 4, 6)).tiffsave_buffer(), "6 channels"),
    "pages": (encoded("TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]), "2 pages"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_sentence(tmp_path, name):
    data, reason = BAD[name]
    path = tmp_path / "a.png"
    path.write_bytes(data)
    began = time.perf_counter()
    with pytest.raises(MaximirError, match=reason) as caught:
        read(path)
    assert time.perf_counter() - began < 0.5
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("none.png", "no such file"), (".", "is a folder"), ("pipe", "not a regular file")):
        with pytest.raises(MaximirError, match=reason):
            read(tmp_path / name)
    with pytest.raises(MaximirError):
        read(Path("nul\0byte.png"))


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), MemoryError()])
def test_the_system_may_refuse(tmp_path, monkeypatch, error):
    def refuse(path, mode):
        raise error

    path = save(smooth(), tmp_path / "a.png")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MaximirError, match=r"permission denied|not enough memory"):
        read(path)


def test_limits(tmp_path, monkeypatch):
    path = save(smooth(), tmp_path / "a.png")
    monkeypatch.setattr("maximir.images.reading.MAX_PIXELS", smooth().size // 3)
    read(path)
    monkeypatch.setattr("maximir.images.reading.MAX_PIXELS", smooth().size // 3 - 1)
    with pytest.raises(MaximirError, match="over the limit"):
        read(path)
    monkeypatch.setattr("maximir.images.reading.MAX_BYTES", 100)
    with pytest.raises(MaximirError, match="the limit is 100"):
        read(path)


WHOLE = {
    "png": encoded("PNG", exif=camera_exif(6), icc_profile=ICC),
    "jpeg": encoded("JPEG", exif=camera_exif(6), icc_profile=ICC, xmp=XMP),
    "progressive": encoded("JPEG", progressive=True),
    "webp": encoded("WEBP", exif=camera_exif(6)),
    "lossless": encoded("WEBP", lossless=True),
    "tiff": encoded("TIFF", exif=camera_exif(6)),
    "deflate": encoded("TIFF", compression="tiff_adobe_deflate"),
    "lzw": encoded("TIFF", compression="tiff_lzw"),
    "gif": encoded("GIF"),
    "avif": encoded("AVIF"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_files_are_refused(tmp_path, kind):
    data, path = WHOLE[kind], tmp_path / "a"
    path.write_bytes(data)
    read(path)
    cuts = [int(len(data) * f) for f in (0.01, 0.1, 0.3, 0.5, 0.8, 0.95)]
    # A PNG's last 12 bytes and a GIF's last one only say that it ends: every pixel is there without.
    for cut in [*cuts, len(data) - {"png": 13, "gif": 2}.get(kind, 1)]:
        path.write_bytes(data[:cut])
        with pytest.raises(MaximirError):
            read(path)


def test_damaged_strips_are_refused_and_odd_headers_are_not(tmp_path):
    damaged = bytearray(pyvips.Image.new_from_array(smooth()).tiffsave_buffer(compression="deflate"))
    damaged[60:80] = bytes(20)  # inside the first strip: libvips lets this pass below fail_on="error"
    (tmp_path / "a").write_bytes(damaged)
    with pytest.raises(MaximirError, match="damaged"):
        read(tmp_path / "a")
    plain = encoded("JPEG")
    for odd in (
        plain.replace(b"JFIF\0\1\1", b"JFIF\0\7\7"),
        plain[:2] + bytes(3) + plain[2:],
        plain + b"junk",
    ):
        assert odd != plain  # and libvips refuses two of these at fail_on="warning"
        (tmp_path / "a").write_bytes(odd)
        assert read(tmp_path / "a").rgb.shape == smooth().shape


@pytest.mark.parametrize("kind", WHOLE)
def test_mutated_files_are_read_or_refused(tmp_path, kind):
    rng = np.random.default_rng(len(kind))
    path, outcomes = tmp_path / "a", []
    for _ in range(20):
        data = bytearray(WHOLE[kind])
        near = len(data) if rng.random() < 0.5 else min(len(data), 400)  # headers break more than pixels
        for at in rng.integers(0, near, rng.integers(1, 6)):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            photo = read(path)
        except MaximirError as e:
            assert "\n" not in str(e)  # noqa: PT017
            outcomes.append("refused")
        else:
            for suffix in (".png", ".jpg", ".webp", ".tif"):
                if photo.rgb.size < 10**6 and not (photo.alpha is not None and suffix == ".jpg"):
                    write(photo, tmp_path / f"b{suffix}")
            outcomes.append("read")
    assert "refused" in outcomes


def test_no_stale_pixels(tmp_path):
    for value in (10, 200):
        path = save(np.full((8, 8, 3), value, np.uint8), tmp_path / "a.png")
        os.utime(path, (1, 1))
        assert (read(path).rgb == value).all()


def test_threads_get_their_own_results(tmp_path):
    paths = [save(np.full((20, 30, 3), v, np.uint8), tmp_path / f"{v}.png") for v in range(24)]
    (tmp_path / "bad.png").write_bytes(WHOLE["png"][:-40])

    def value(path: Path) -> int | None:
        try:
            return int(read(path).rgb.max())
        except MaximirError:
            return None

    with ThreadPoolExecutor(8) as pool:
        work = [p for path in paths for p in (path, tmp_path / "bad.png")]
        assert list(pool.map(value, work)) == [x for v in range(24) for x in (v, None)]


# Writing that fails


def disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, where, disk_full)
    with pytest.raises(MaximirError, match="no space left"):
        write(Photo(smooth()), path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == b"old"


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(Photo(smooth()), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("none/a.png", "folder.png", "file/a.png", "a.bmp", "a", "a.gif", "a.heic", "a.jxl"):
        with pytest.raises(MaximirError):
            write(Photo(smooth()), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_too_wide_for_webp(tmp_path):
    with pytest.raises(MaximirError, match="holds at most 16,383 pixels"):
        write(Photo(np.zeros((1, 16_384, 3), np.uint8)), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


def test_an_old_file_is_replaced_with_ordinary_rights(tmp_path):
    path = save(noise(4, 4, 3), tmp_path / "a.PNG", format="PNG")
    (tmp_path / "plain").write_bytes(b"")
    write(Photo(smooth()), path)
    assert np.array_equal(read(path).rgb, smooth())
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(("tail", "kept"), [(b"", True), (b"\0\0", True), (None, False)])
def test_profiles_with_a_wrong_length(tmp_path, tail, kept):
    """libpng refuses a profile that is not as long as it says: a longer one is trimmed, a cut one dropped."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    carried = profile[:-10] if tail is None else profile + tail
    notes = write(Photo(smooth(), metadata={"icc-profile-data": carried}), tmp_path / "a.png")
    assert bool(notes) != kept
    assert read(tmp_path / "a.png").metadata.get("icc-profile-data") == (profile if kept else None)


def test_what_is_left_out_is_said(tmp_path):
    assert write(Photo(smooth().astype(np.uint16)), tmp_path / "a.jpg") == (
        "16 bit reduced to the 8 of JPEG",
    )
