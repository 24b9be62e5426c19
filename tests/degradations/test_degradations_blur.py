import numpy as np
import pytest

from maximir.degradations import DEGRADATIONS, blur
from maximir.degradations.blur import (
    KERNEL_SIZE,
    LONGEST,
    SHORTEST,
    convolve,
    frames_path,
    hand_path,
    motion_blur,
    random_softness,
    rasterise,
    soft_mask,
    straight_path,
)


def kernel_of(seed, size=KERNEL_SIZE):
    """A kernel of camera shake, 3 to 27 pixels wide if `size` allows."""
    rng = np.random.default_rng(seed)
    return rasterise(hand_path(rng), size, random_softness(rng))


def centre_of_mass(kernel):
    positions = np.indices(kernel.shape) - kernel.shape[0] // 2
    return (positions * kernel).sum(axis=(1, 2))


def support(kernel):
    """The longer side of the box around everything brighter than 2 % of the brightest pixel."""
    return int(np.ptp(np.argwhere(kernel > 0.02 * kernel.max()), axis=0).max()) + 1


@pytest.mark.parametrize("size", [9, 19, 33])
def test_kernels_are_kernels(size):
    kernels = [kernel_of(seed, size) for seed in range(40)]
    for seed, kernel in enumerate(kernels):
        assert kernel.shape == (size, size) and kernel.dtype == np.float32
        assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1, abs=1e-5)
        assert np.abs(centre_of_mass(kernel)).max() < 0.5
        assert np.array_equal(kernel, kernel_of(seed, size))
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_kernels_are_of_all_sizes_thin_and_with_bright_spots():
    kernels = [kernel_of(seed) for seed in range(150)]
    supports = np.array([support(kernel) for kernel in kernels])
    assert supports.min() <= 5 and 20 <= supports.max() <= 28
    assert np.histogram(supports, [3, 8, 13, 18, 25])[0].min() >= 11
    large = [kernel for kernel, side in zip(kernels, supports, strict=True) if side >= 12]
    lit = [np.mean(kernel > 0.1 * kernel.max()) * KERNEL_SIZE**2 for kernel in large]
    assert np.median(lit) < 90  # of 1089: a path, not a spot
    rested = [np.sort(kernel.ravel())[-4:].sum() for kernel in large]  # light in the four brightest pixels
    assert 0.18 < np.median(rested) < 0.36  # about 0.13 at a constant speed; 0.23–0.36 in Levin's kernels 1–4


def test_paths_are_centred_and_both_straight_and_curved():
    bends = []
    for seed in range(100):
        path = hand_path(np.random.default_rng(seed))
        assert abs(path.mean()) < 1e-9
        principal = np.linalg.svd(np.stack([path.real, path.imag]), compute_uv=False)
        bends.append(principal[1] / principal[0])
    assert np.mean(np.array(bends) < 0.1) > 0.1 and np.mean(np.array(bends) > 0.4) > 0.1


def test_rasterising_is_subpixel():
    path = np.array([-2.25 + 1j, 2.25 - 1j])
    kernel = rasterise(path, 9, 0.0)
    expected = np.zeros((9, 9))
    expected[5, 1:3] = 0.125, 0.375
    expected[3, 6:8] = 0.375, 0.125
    np.testing.assert_allclose(kernel, expected, atol=1e-6)
    soft = rasterise(path, 9, 0.5)
    assert soft.max() < kernel.max() and np.abs(centre_of_mass(soft)).max() < 1e-3


@pytest.mark.parametrize("shape", [(40, 40), (37, 50)])
def test_convolution_is_that_of_the_definition(shape):
    rng = np.random.default_rng(0)
    image = rng.random((*shape, 3), dtype=np.float32)
    kernel = rng.random((5, 5), dtype=np.float32)
    direct = sum(
        kernel[i, j] * np.roll(image, (i - 2, j - 2), axis=(0, 1)) for i, j in np.ndindex(kernel.shape)
    )
    blurred = convolve(image, kernel)
    assert blurred.dtype == np.float32 and blurred.flags.c_contiguous
    np.testing.assert_allclose(blurred, direct, atol=1e-5)


def test_a_constant_image_gets_nothing_but_noise():
    image = np.broadcast_to(np.float32([0.3, 0.5, 0.7]), (64, 64, 3))
    deviations = []
    for seed in range(60):
        blurred = motion_blur(image, np.random.default_rng(seed))
        np.testing.assert_allclose(blurred.mean(axis=(0, 1)), image[0, 0], atol=0.004)
        deviations.append((blurred - image).std())
    assert max(deviations) < 0.032 and min(deviations) < 0.004
    assert 0.3 < np.mean((np.array(deviations) > 0.005) & (np.array(deviations) < 0.015)) < 0.9


def test_the_margin_is_all_that_depends_on_the_wrap():
    """Two images that differ only outside the crop and its margin give the same crop."""
    margin = DEGRADATIONS["motion-blur"].margin
    assert margin == KERNEL_SIZE // 2
    rng = np.random.default_rng(0)
    image = rng.random((120, 120, 3), dtype=np.float32)
    inside = np.s_[20 : 20 + 64 + 2 * margin, 20 : 20 + 64 + 2 * margin]
    keep = np.s_[margin:-margin, margin:-margin]
    for seed in range(20):
        kernel = kernel_of(seed)
        whole = convolve(image, kernel)[inside][keep]
        np.testing.assert_allclose(convolve(image[inside], kernel)[keep], whole, atol=1e-5)


def test_some_images_are_sharp_and_most_are_not(monkeypatch):
    seen = []
    monkeypatch.setattr(blur, "shake", lambda image, *rest: seen.append(image.mean()) or image)
    image = np.random.default_rng(0).random((40, 40, 3), dtype=np.float32)
    for seed in range(300):
        motion_blur(image, np.random.default_rng(seed))
    assert 3 <= 300 - len(seen) <= 30
    assert 45 <= sum(mean < 0.45 for mean in seen) <= 100  # in linear light


def test_masks_pass_smoothly_from_one_part_to_the_other():
    masks = [soft_mask((64, 80), np.random.default_rng(seed)) for seed in range(50)]
    for mask in masks:
        assert mask.shape == (64, 80, 1) and mask.min() >= 0 and mask.max() <= 1
        assert np.abs(np.diff(mask, axis=0)).max() < 0.2
    assert np.mean([np.ptp(mask) > 0.5 for mask in masks]) > 0.8


def test_short_paths_blur_less():
    image = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    left = [
        np.mean([motion_blur(image, np.random.default_rng(seed), longest=side).std() for seed in range(40)])
        for side in (22.0, 8.0)
    ]
    assert left[0] < 0.85 * left[1] and left[1] < 0.5 * image.std()


def test_straight_paths_are_nearly_straight():
    for seed in range(50):
        path = straight_path(np.random.default_rng(seed), longest=12.0)
        along = path * np.exp(-1j * np.angle(path[-1] - path[0]))
        assert abs(path.mean()) < 1e-9
        assert SHORTEST <= np.ptp(along.real) <= 12.1
        assert np.ptp(along.imag) < 0.25 * np.ptp(along.real)


def test_frames_leave_dashes():
    """Between the frames a path is not seen: it jumps more often than that of a still exposure."""

    def jumps(kind):
        paths = [kind(np.random.default_rng(seed)) for seed in range(200)]
        assert all(abs(path.mean()) < 1e-9 for path in paths)
        assert max(max(np.ptp(path.real), np.ptp(path.imag)) for path in paths) < LONGEST + 2
        steps = [np.abs(np.diff(path)) for path in paths]
        return np.median([(step > 4 * np.median(step)).sum() for step in steps])

    assert jumps(frames_path) >= jumps(hand_path) + 4


def test_half_of_the_averaged_frames_are_blurred_in_linear_light():
    """A white point on black: its light is spread, and the file holds the root of it."""
    image = np.zeros((65, 65, 3), np.float32)
    image[32, 32] = 1
    sums = [
        (DEGRADATIONS["averaged-frames"](image, np.random.default_rng(seed)) - 0.05).clip(0).sum()
        for seed in range(60)
    ]
    assert 0.3 < np.mean(np.array(sums) > 8) < 0.7
