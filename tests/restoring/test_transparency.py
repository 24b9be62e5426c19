"""Colours under fully transparent pixels never change visible ones, and come back as they were."""

import numpy as np
import pytest
from PIL import Image

from maximir import Restorer, images
from maximir.images import Photo
from maximir.images.codecs import tiff
from maximir.restoring import transparency, views

HEIGHT, WIDTH = 70, 90
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def restorer(gentle_weights):
    return Restorer(gentle_weights, "cpu", "fp32")


def cut_out(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """[H, W] bool: hidden but for an ellipse and a few pixels."""
    y, x = np.mgrid[:height, :width]
    hidden = np.hypot((y / height - 0.5) * 2.2, (x / width - 0.4) * 2.5) > 1
    hidden[:3, :3] = False
    return hidden


def twins(channels: int = 4, dtype: type = np.uint8, size: tuple[int, int] = (HEIGHT, WIDTH)):
    """Two arrays [H, W, C] that differ only in colours under alpha 0, and where that is."""
    full = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    hidden = cut_out(*size)
    one = (rng.random((*size, channels)) * full).astype(dtype)
    one[..., -1] = np.where(hidden, 0, full // 2 or 0.5)
    other = one.copy()
    one[..., :-1][hidden] = 0
    other[..., :-1][hidden] = (rng.random((hidden.sum(), channels - 1)) * full).astype(dtype)
    return one, other, hidden


def check(one, other, restored_one, restored_other, hidden):
    np.testing.assert_array_equal(restored_one[~hidden], restored_other[~hidden])
    for before, after in ((one, restored_one), (other, restored_other)):
        np.testing.assert_array_equal(after[hidden], before[hidden])
        assert not np.array_equal(after[~hidden], before[~hidden])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_arrays(restorer, dtype):
    one, other, hidden = twins(dtype=dtype)
    check(one, other, restorer(one), restorer(other), hidden)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L", "I;16"])
def test_pil_images(restorer, mode):
    if mode in ("RGBA", "LA"):
        one, other, hidden = twins(len(mode))
        pair = [Image.fromarray(each) for each in (one, other)]
    elif mode in ("P", "PA"):
        indices = rng.integers(1, 256, (HEIGHT, WIDTH), np.uint8)
        hidden = cut_out()
        indices[hidden] = 0
        pair = []
        for colour in ((0, 0, 0), (250, 3, 99)):
            image = Image.fromarray(indices, "L").convert("P")
            image.putpalette([*colour, *np.random.default_rng(1).integers(0, 256, 765).tolist()])
            image.info["transparency"] = 0
            pair.append(image if mode == "P" else image.convert("PA"))
    else:  # a transparent colour: two keys that no visible pixel has
        dtype = np.uint16 if mode == "I;16" else np.uint8
        one, other, hidden = twins(4 if mode == "RGB" else 2, dtype)
        pair = []
        for each, key in ((one, 0), (other, 255)):
            pixels = each[..., :-1].clip(1, 254)
            pixels[hidden] = key
            image = Image.fromarray(pixels if mode == "RGB" else pixels[..., 0])
            image.info["transparency"] = (key, key, key) if mode == "RGB" else key
            pair.append(image)
    arrays, results = [], []
    for image in pair:
        restored = restorer(image)
        wanted = restored.mode if mode != "I;16" else mode
        arrays.append(np.asarray(image.convert(wanted)))
        results.append(np.asarray(restored))
    if mode == "I;16":  # which may move a pixel by one level off the key
        assert np.abs(results[0].astype(int) - results[1])[~hidden].max() <= 1
        assert (results[0][hidden] == 0).all() and (results[1][hidden] == 255).all()
    else:
        check(*arrays, *results, hidden)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("png", np.uint8), ("png", np.uint16), ("tiff", np.uint8), ("tiff", np.uint16), ("webp", np.uint8)],
)
@pytest.mark.parametrize("channels", [2, 4])
def test_files(restorer, kind, dtype, channels, tmp_path):
    one, other, hidden = twins(channels, dtype)
    results = []
    for number, pixels in enumerate((one, other)):
        rgb = pixels[..., :3] if channels == 4 else pixels[..., :1].repeat(3, axis=2)
        source, target = tmp_path / f"{number}.{kind}", tmp_path / f"{number}.result.{kind}"
        images.write(Photo(rgb, channels == 2, pixels[..., -1]), source)
        restorer.restore_file(source, target)
        photo = images.read(target)
        results.append(np.dstack([photo.rgb[..., : channels - 1], photo.alpha]))
    check(one, other, *results, hidden)


def test_a_colour_key_of_a_png(restorer, tmp_path):
    one, _, hidden = twins()
    results = []
    for number, key in enumerate(((0, 0, 0), (255, 255, 255))):
        pixels = one[..., :3].clip(1, 254)
        pixels[hidden] = key
        Image.fromarray(pixels).save(tmp_path / f"{number}.png", transparency=key)
        restorer.restore_file(tmp_path / f"{number}.png", tmp_path / f"{number}.result.png")
        results.append(images.read(tmp_path / f"{number}.result.png").rgb)
        assert (results[-1][hidden] == key).all()
    np.testing.assert_array_equal(results[0][~hidden], results[1][~hidden])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["views", "windows", "ensemble"])
def test_large_images(gentle_weights, way, monkeypatch):
    restorer = Restorer(gentle_weights, "cpu", "fp32", ensemble=way == "ensemble")
    size = (HEIGHT, WIDTH)
    if way == "views":
        restorer.task = "enhance"
        for name, value in {"LARGE": 128, "SMALL": 64, "TILE": 128, "OVERLAP": 32}.items():
            monkeypatch.setattr(views, name, value)
        size = (150, 200)
    elif way == "windows":
        size = (200, 260)
    one, other, hidden = twins(size=size)
    assert restorer.way(*size) == (way if way != "ensemble" else "whole")
    check(one, other, restorer(one), restorer(other), hidden)


def test_grey_is_judged_by_what_is_visible(restorer):
    one, other, hidden = twins()
    one[..., :3] = one[..., :1]
    other = np.where(hidden[..., None], other, one)
    result = restorer(other)
    assert (result[~hidden][:, 0] == result[~hidden][:, 2]).all()
    check(one, other, restorer(one), result, hidden)


def test_values_that_are_no_colours(restorer):
    one, other, hidden = twins(dtype=np.float32)
    other[..., :3][hidden] = np.nan
    check(one, other, restorer(one), restorer(other), hidden)


def test_an_extra_channel_hides_nothing(restorer):
    one, other, hidden = twins()
    metadata = {"extra-sample": tiff.UNSPECIFIED}
    rgb = [
        restorer.restore_photo(Photo(each[..., :3], False, each[..., 3], metadata)).rgb
        for each in (one, other)
    ]
    assert not np.array_equal(rgb[0][hidden], one[hidden][:, :3])
    assert not np.array_equal(rgb[0][~hidden], rgb[1][~hidden])


def test_nothing_visible(restorer):
    pixels = rng.integers(0, 256, (20, 30, 4), np.uint8)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(restorer(pixels), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 2), (300, 517)])
def test_the_fill_continues_what_is_visible(size):
    hidden = rng.random(size) < 0.7
    hidden[0, 0] = False
    image = np.full((*size, 3), 200, np.uint8)
    image[hidden] = 7
    assert (transparency.fill(image, hidden) == 200).all()
    ramp = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[None, :, None], 3, axis=2).repeat(64, axis=0)
    hidden = np.zeros(ramp.shape[:2], bool)
    hidden[:, 128:192] = True
    filled = transparency.fill(ramp, hidden)
    assert np.abs(filled - ramp).max() < 0.2  # a bridge, no cliff
    assert np.abs(np.diff(filled[..., 0], axis=1)).max() < 0.1
