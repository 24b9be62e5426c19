"""Errors of colour: brightness is matched, a cast and a turned hue are seen, greys and colours are apart."""

import importlib.util

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from maximir.errors import MaximirError
from maximir.evaluation.colour import colour_error


@pytest.fixture
def patches():
    """Half greys, half saturated: [H, W, 3] in Lab, inside of sRGB."""
    lightness = np.linspace(35, 65, 32)[:, None]
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    lab = np.zeros((32, 64, 3))
    lab[..., 0] = lightness
    lab[:, 32:, 1], lab[:, 32:, 2] = 28 * np.cos(angle), 28 * np.sin(angle)
    return lab


def test_equal_images_and_a_darker_copy_have_no_error(patches):
    target = lab2rgb(patches)
    same = colour_error(target, target)
    darker = colour_error(0.5 * target, target)
    assert max(same.delta_e, same.hue) < 1e-6 and same.cast < 0.05
    assert darker.delta_e < 1e-4 and darker.hue < 1e-3


def test_a_cast_of_greys_is_its_chroma(patches):
    shifted = patches + np.array([0, 3, 4])
    error = colour_error(lab2rgb(shifted), lab2rgb(patches))
    assert error.cast == pytest.approx(5, abs=0.2)
    assert 2 < error.delta_e < 6


def test_hue_is_the_angle_by_which_saturated_colours_are_turned(patches):
    turned, angle = patches.copy(), np.radians(25)
    a, b = patches[..., 1], patches[..., 2]
    turned[..., 1], turned[..., 2] = (
        a * np.cos(angle) - b * np.sin(angle),
        a * np.sin(angle) + b * np.cos(angle),
    )
    error = colour_error(lab2rgb(turned), lab2rgb(patches))
    assert error.hue == pytest.approx(25, abs=0.5) and error.cast < 0.1


def test_delta_e_is_that_of_scikit_image(patches):
    image = np.round(lab2rgb(patches) * 255).astype(np.uint8)
    other = np.clip(image.astype(int) + np.array([9, -5, -4]), 0, 255).astype(np.uint8)
    scaled = np.clip(other / 255 * (image.mean() / other.mean()), 0, 1)
    by_hand = deltaE_ciede2000(rgb2lab(image), rgb2lab(scaled)).mean()
    assert colour_error(other, image).delta_e == pytest.approx(by_hand, abs=1e-5)


def test_a_figure_without_enough_pixels_is_missing(patches):
    greys, colours = (lab2rgb(patches[:, half]) for half in (slice(32), slice(32, None)))
    assert colour_error(greys, greys).hue is None
    assert colour_error(colours, colours).cast is None


def test_a_black_result_is_measured(patches):
    assert colour_error(np.zeros_like(patches), lab2rgb(patches)).delta_e > 30


def test_without_scikit_image_it_says_what_to_install(patches, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MaximirError, match="maximir\\[evaluate\\]"):
        colour_error(patches, patches)
