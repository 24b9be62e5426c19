"""Strips of pictures: four panels above, the worst place magnified below."""

import io

import numpy as np
import pytest
from PIL import Image

from maximir.evaluation.pictures import (
    DETAIL,
    FULL_ERROR,
    HEAT,
    WIDTH,
    differences,
    fit,
    heat,
    strip,
    worst_place,
    zoom,
)

ZOOM = WIDTH // DETAIL


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB")).astype(int)


def panel(picture, row, column, height):
    """The middle of a panel: compression mixes colours at the borders."""
    top = 0 if row == 0 else height
    part = picture[top : top + (height if row == 0 else WIDTH), column * WIDTH : (column + 1) * WIDTH]
    h, w = part.shape[0] // 4, part.shape[1] // 4
    return part[h:-h, w:-w]


def test_four_panels_and_a_magnified_detail():
    target = np.full((WIDTH, 2 * WIDTH, 3), 60, np.uint8)
    restored, degraded = target + np.uint8(24), target + np.uint8(90)
    picture = decoded(strip(degraded, restored, target))
    assert picture.shape == (WIDTH // 2 + WIDTH, 4 * WIDTH, 3)
    colours = [(150,) * 3, (84,) * 3, (60,) * 3, HEAT[2]]  # an error of 24 is the middle of the scale
    for row in (0, 1):
        for column, colour in enumerate(colours):
            assert np.abs(panel(picture, row, column, WIDTH // 2) - colour).max() <= 4


def test_without_a_degraded_image_its_panel_is_black():
    target = np.full((40, 40, 3), 200, np.uint8)
    picture = decoded(strip(None, target, target))
    assert panel(picture, 0, 0, WIDTH).max() <= 4 and panel(picture, 0, 1, WIDTH).min() >= 190


def test_the_detail_shows_the_worst_place():
    target = np.full((600, 900, 3), 100, np.uint8)
    restored = target.copy()
    restored[400:420, 700:720] = 255
    restored[100, 100] = 0  # one pixel is not the worst
    y, x = worst_place(differences(restored, target))
    assert 420 - DETAIL <= y <= 400 and 720 - DETAIL <= x <= 700
    picture = decoded(strip(target, restored, target))
    height = round(600 * WIDTH / 900)
    magnified = picture[height:, WIDTH : 2 * WIDTH]
    square = magnified[
        (400 - y) * ZOOM + 8 : (420 - y) * ZOOM - 8, (700 - x) * ZOOM + 8 : (720 - x) * ZOOM - 8
    ]
    assert square.size and square.min() > 240


@pytest.mark.parametrize(("at", "size"), [((0, 0), (600, 900)), ((599, 899), (600, 900)), ((2, 3), (9, 12))])
def test_the_detail_is_within_the_image(at, size):
    difference = np.zeros(size)
    difference[at] = 1
    y, x = worst_place(difference)
    assert 0 <= y <= max(0, size[0] - DETAIL) and 0 <= x <= max(0, size[1] - DETAIL)
    assert y <= at[0] < y + DETAIL and x <= at[1] < x + DETAIL


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (11, 8000), (300, 100), (12, 700)])
def test_images_of_any_shape(size):
    image = np.full((*size, 3), 200, np.uint8)
    picture = decoded(strip(image, image, image))
    assert picture.shape[1] == 4 * WIDTH and WIDTH < picture.shape[0] <= 3 * WIDTH
    height = picture.shape[0] - WIDTH
    assert abs(height - min(max(1, WIDTH * size[0] / size[1]), 2 * WIDTH)) < 1


def test_the_scale_of_errors():
    colours = heat(np.array([[0, FULL_ERROR / 2, FULL_ERROR, 255]], np.float32))
    assert colours.tolist() == [[list(HEAT[0]), list(HEAT[2]), list(HEAT[-1]), list(HEAT[-1])]]
    brightness = heat(np.linspace(0, FULL_ERROR, 97)[None]).sum(axis=-1, dtype=int)[0]
    assert (np.diff(brightness) >= 0).all() and brightness[0] < brightness[-1]


def test_differences_do_not_wrap_around():
    one, other = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    one[0, 0], other[1, 1] = (255, 0, 0), (3, 6, 9)
    assert differences(one, other).tolist() == [[85, 0], [0, 6]]


def test_fit_and_zoom_keep_what_is_there():
    image = np.random.default_rng(0).integers(0, 256, (DETAIL, DETAIL - 40, 3), np.uint8)
    magnified = zoom(image)
    assert magnified.shape == (WIDTH, WIDTH, 3)
    assert np.array_equal(magnified[::ZOOM, ::ZOOM][:, : DETAIL - 40], image)
    assert not magnified[:, ZOOM * (DETAIL - 40) :].any()
    large = np.repeat(np.repeat(np.arange(WIDTH, dtype=np.float32)[None], 2, axis=0), 3, axis=1)
    assert np.array_equal(fit(large), np.arange(WIDTH, dtype=np.float32)[None])  # means of blocks
