"""What test images are degraded with: exactly what the field's scripts do, and the same every time."""

import zlib

import numpy as np
import pytest
from scipy import ndimage

from maximir import images
from maximir.degradations import DEGRADATIONS, degrade_photograph
from maximir.errors import MaximirError, UsageError
from maximir.evaluation.testsets import degradation
from maximir.images import Photo

CLEAN = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)


def put(path, pixels):
    images.write(Photo(np.repeat(pixels[..., None], 3, axis=-1), grey=True), path)
    return path


def test_gaussian_noise_is_that_of_the_fields_scripts():
    noise = np.random.RandomState(0).normal(0, 25 / 255, CLEAN.shape)
    expected = (CLEAN.astype(np.float32) / np.float32(255) + noise).astype(np.float32)
    noisy = degradation("gaussian:25")
    for name in ("a", "b"):  # for each image anew, whatever it is called
        result = noisy(CLEAN, name)
        assert result.dtype == np.float32 and np.array_equal(result, expected)
    assert expected.min() < 0 and expected.max() > 1
    as_file = degradation("gaussian:25:file")(CLEAN, "a")
    assert np.array_equal(as_file, np.round(expected.clip(0, 1) * 255) / np.float32(255))
    assert np.array_equal(degradation("gaussian:0")(CLEAN, "a") * np.float32(255), CLEAN)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_blur_with_a_kernel_is_a_convolution_with_mirrored_borders(depth, tmp_path):
    kernel = np.zeros((5, 7), depth)
    kernel[0, 6], kernel[2, 3], kernel[4, 1], kernel[1, 0] = 250, 100, 50, 25
    blur = degradation(f"kernel:{put(tmp_path / 'kernel.png', kernel)}")
    result = blur(CLEAN, "name")
    noise = np.random.default_rng(zlib.crc32(b"name")).standard_normal(CLEAN.shape, dtype=np.float32)

    def expected(filter):
        weights = (kernel / kernel.sum())[..., None]
        return np.round((filter(CLEAN / 255, weights, mode="mirror") + 0.01 * noise).clip(0, 1) * 255)

    levels = result * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
    differences = np.abs(levels.round() - expected(ndimage.convolve))
    assert differences.max() <= 1 and (differences > 0).mean() < 0.01  # rounded, after float32
    # The control: an asymmetric kernel must not be turned around.
    assert (np.abs(levels - expected(ndimage.correlate)) > 5).mean() > 0.3
    assert not np.array_equal(blur(CLEAN, "another"), result)


def test_a_kernel_that_moves_the_image_moves_it(tmp_path):
    kernel = np.zeros((3, 3), np.uint8)
    kernel[1, 2] = 255  # right of the centre
    moved = degradation(f"kernel:{put(tmp_path / 'kernel.png', kernel)}")(CLEAN, "a") * 255
    assert np.abs(moved[:, 1:] - CLEAN[:, :-1]).mean() < 3  # noise of 1 %
    assert np.abs(moved[:, :-1] - CLEAN[:, 1:]).mean() > 50


def test_an_image_may_be_smaller_than_the_kernel(tmp_path):
    blur = degradation(f"kernel:{put(tmp_path / 'kernel.png', np.full((31, 31), 9, np.uint8))}")
    assert blur(CLEAN[:5, :1], "a").shape == (5, 1, 3)


@pytest.mark.parametrize("name", [name for name, each in DEGRADATIONS.items() if not each.needs_depth])
def test_names_of_degradations_are_seeded_by_the_images_name(name):
    degrade = degradation(name)
    first = degrade(CLEAN, "set/a")
    assert first.dtype == np.float32 and first.shape == CLEAN.shape
    assert np.array_equal(first, degrade_photograph(CLEAN, name, [zlib.crc32(b"set/a")]))
    assert not np.array_equal(first, degrade(CLEAN, "set/b"))
    assert np.array_equal(degrade(CLEAN, "set/a"), first)


def test_names_that_are_no_text():
    assert degradation("gaussian-25")(CLEAN, "\udcff").shape == CLEAN.shape


@pytest.mark.parametrize(
    "text",
    ["", "sepia", "25", "rain:2", "depth-haze", "kernel", "kernel:"]
    + [f"gaussian:{argument}" for argument in ("", "x", "-1", "256", "nan", "25:jpeg")],
)
def test_what_is_no_degradation(text):
    with pytest.raises(UsageError) as refused:
        degradation(text)
    assert str(refused.value).startswith(f"--degrade {text}: ") and "gaussian:SIGMA" in str(refused.value)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (np.ones((4, 5), np.uint8), "is not black; this one is 5 x 4"),
        (np.ones((5, 4), np.uint8), "is not black; this one is 4 x 5"),
        (np.zeros((5, 5), np.uint8), "is not black; this one is 5 x 5"),
        (None, "not an image that maximir can read"),
    ],
)
def test_what_is_no_kernel(kernel, reason, tmp_path):
    path = tmp_path / "kernel.png"
    if kernel is None:
        path.write_text("none")
    else:
        put(path, kernel)
    with pytest.raises(MaximirError) as refused:
        degradation(f"kernel:{path}")
    assert str(refused.value).startswith(f"{path}: ") and str(refused.value).endswith(reason)


def test_jpegs_lose_more_at_a_lower_quality():
    errors = [np.abs(degradation(f"jpeg:{q}")(CLEAN, "a") * 255 - CLEAN).mean() for q in (10, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("text", ["jpeg:", "jpeg:0", "jpeg:101", "jpeg:x", "jpeg:9.5"])
def test_qualities_that_are_none(text):
    with pytest.raises(UsageError, match=r"jpeg:QUALITY"):
        degradation(text)
