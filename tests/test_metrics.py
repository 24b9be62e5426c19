import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate1d, shift
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from maximir import metrics
from maximir.errors import MaximirError
from maximir.metrics import align, luma, psnr, ssim, ssim_volume

PHOTOGRAPH = np.asarray(Image.open(Path(__file__).parents[1] / "examples" / "astronaut.png"))[:160, 120:300]
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def noisy(image: np.ndarray, sigma: float = 20) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def scikit_image_ssim(a: np.ndarray, b: np.ndarray, peak: float = 255, **options) -> float:
    return structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        data_range=peak,
        channel_axis=-1 if a.ndim == 3 else None,
        **{"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} | options,
    )


def windows(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every window of 11 to the power of the image's dimensions, flat, and the Gaussian weights."""
    side = 11
    distance = sum((axis - 5.0) ** 2 for axis in np.indices((side,) * image.ndim))
    weights = np.exp(-distance / (2 * 1.5**2))
    starts = np.ndindex(*(length - side + 1 for length in image.shape))
    parts = [image[tuple(slice(i, i + side) for i in start)].ravel() for start in starts]
    return np.array(parts, np.float64), (weights / weights.sum()).ravel()


def slow_ssim(image: np.ndarray, clean: np.ndarray) -> float:
    """The definition, window by window; central moments, where maximir subtracts squares."""
    (a, weights), (b, _) = windows(image), windows(clean)
    mean_a, mean_b = (weights * a).sum(-1), (weights * b).sum(-1)
    variance_a = (weights * (a - mean_a[..., None]) ** 2).sum(-1)
    variance_b = (weights * (b - mean_b[..., None]) ** 2).sum(-1)
    covariance = (weights * (a - mean_a[..., None]) * (b - mean_b[..., None])).sum(-1)
    quotient = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return float((quotient * (2 * covariance + C2) / (variance_a + variance_b + C2)).mean())


def test_psnr_by_hand():
    reference = np.zeros((2, 2, 3), np.uint8)
    assert psnr(reference, reference) == float("inf")
    assert psnr(reference + 255, reference) == 0
    assert psnr(reference + 10, reference) == pytest.approx(20 * np.log10(25.5))


def test_psnr_is_scikit_images():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(2))
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a), abs=1e-9)
    assert psnr(a / 255, b / 255, peak=1.0) == pytest.approx(psnr(a, b))


def test_psnr_of_a_mask_counts_its_pixels_only():
    image, mask = np.zeros((40, 30, 3), np.uint8), np.zeros((40, 30), bool)
    image[:, :10], mask[:, :15] = 30, True
    assert psnr(image, np.zeros_like(image), mask=mask) == pytest.approx(
        10 * np.log10(255**2 / (900 * 10 / 15))
    )
    with pytest.raises(MaximirError, match="no pixels are left"):
        psnr(image, image, mask=~mask & mask)


@pytest.mark.parametrize("metric", [psnr, ssim, ssim_volume])
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match="shapes differ"):
        metric(np.zeros((12, 12)), np.zeros((12, 13)))


@pytest.mark.parametrize("shape", [(11, 11), (11, 40, 3), (160, 180, 3), (50, 33, 1)])
def test_ssim_is_scikit_images(shape):
    clean = PHOTOGRAPH[: shape[0], : shape[1], 0] if len(shape) == 2 else PHOTOGRAPH[tuple(map(slice, shape))]
    image = noisy(clean)
    expected = scikit_image_ssim(image, clean)
    assert 0.05 < expected < 0.95
    assert ssim(image, clean) == pytest.approx(expected, abs=1e-10)
    unit = (image / 255).astype(np.float32), (clean / 255).astype(np.float32)
    assert ssim(*unit, peak=1.0) == pytest.approx(scikit_image_ssim(*unit, peak=1), abs=1e-10)


def test_ssim_window_by_window():
    clean = PHOTOGRAPH[:14, :13, 1]
    image = noisy(clean)
    assert ssim(image, clean) == pytest.approx(slow_ssim(image, clean), abs=1e-12)


@pytest.mark.parametrize("metric", [ssim, ssim_volume])
def test_ssim_of_constants_and_of_itself(metric):
    one, other = (np.full((20, 30, 3), value, np.uint8) for value in (100, 150))
    closed = (2 * 100 * 150 + C1) / (100**2 + 150**2 + C1)  # nothing varies: the second factor is 1
    assert metric(one, other) == pytest.approx(closed, abs=1e-12)
    assert metric(PHOTOGRAPH, PHOTOGRAPH) == 1
    assert metric(255 - PHOTOGRAPH, PHOTOGRAPH) < 0


def test_ssim_needs_a_window():
    with pytest.raises(MaximirError, match="sides of at least 11 pixels, not 30×10"):
        ssim(np.zeros((10, 30, 3)), np.zeros((10, 30, 3)))


@pytest.mark.parametrize("shape", [(30, 40, 3), (3, 4, 3), (30, 40, 2), (30, 40)])
def test_ssim_volume_is_three_correlations(shape):
    clean = PHOTOGRAPH[tuple(map(slice, shape))] if len(shape) == 3 else PHOTOGRAPH[:30, :40, 0]
    image = noisy(clean)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)

    def smooth(values: np.ndarray) -> np.ndarray:
        for axis in range(values.ndim):
            values = correlate1d(values, taps / taps.sum(), axis, mode="nearest")
        return values

    a, b = image.astype(np.float64), clean.astype(np.float64)
    mean_a, mean_b = smooth(a), smooth(b)
    variances = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    quotient = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    expected = (quotient * (2 * covariance + C2) / (variances + C2)).mean()
    assert ssim_volume(image, clean) == pytest.approx(expected, abs=1e-12)


def test_ssim_volume_window_by_window():
    clean = PHOTOGRAPH[40:43, 60:64]
    image = noisy(clean, 60)
    padded = (np.pad(each, 5, mode="edge") for each in (image, clean))
    assert ssim_volume(image, clean) == pytest.approx(slow_ssim(*padded), abs=1e-12)


def test_other_kinds_of_ssim_are_other_numbers():
    """So that taking one for another cannot pass unseen."""
    image = noisy(PHOTOGRAPH)
    index, volume = ssim(image, PHOTOGRAPH), ssim_volume(image, PHOTOGRAPH)
    a, b = (each.astype(np.float64) for each in (image, PHOTOGRAPH))
    flat = np.mean([ssim_volume(a[..., c], b[..., c]) for c in range(3)])  # the whole map, but no mixing
    assert abs(index - volume) > 1e-3
    assert abs(index - flat) > 1e-3 and abs(volume - flat) > 1e-3
    assert abs(index - scikit_image_ssim(a, b, gaussian_weights=False)) > 1e-3
    assert abs(index - scikit_image_ssim(a, b, use_sample_covariance=True)) > 5e-5
    assert abs(index - scikit_image_ssim(a, b, peak=1)) > 1e-3
    assert abs(index - ssim(luma(image), luma(PHOTOGRAPH))) > 1e-2


@pytest.mark.parametrize("tile", [(1, 7), (37, 11), (1000, 1000)])
def test_pieces_do_not_matter(tile, monkeypatch):
    image, mask = noisy(PHOTOGRAPH), PHOTOGRAPH[..., 0] > 180
    assert 0.4 < mask.mean() < 0.6

    def numbers() -> list[float]:
        masked = [metric(image, PHOTOGRAPH, mask=mask) for metric in (psnr, ssim)]
        return masked + [metric(image, PHOTOGRAPH) for metric in (psnr, ssim, ssim_volume)]

    expected = numbers()
    monkeypatch.setattr(metrics, "TILE", tile)
    assert numbers() == pytest.approx(expected, abs=1e-12)


def test_memory_does_not_grow_with_the_image():
    image = np.tile(PHOTOGRAPH, (6, 6, 1))  # 1 megapixel: 25 MB in float64, once
    image[::2] += 1
    peaks = {}
    for metric in (psnr, ssim, ssim_volume):
        tracemalloc.start()
        metric(image, image)
        peaks[metric] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[psnr] < 1e6
    assert peaks[ssim] < 12e6
    assert peaks[ssim_volume] < 12e6 + 2.2 * image.nbytes  # both are padded, in their own type


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 81),  # 81.481
        ((0, 255, 0), 145),  # 144.553
        ((0, 0, 255), 41),  # 40.966
        ((0, 204, 68), 126),  # 125.5 exactly
        ((2, 44, 141), 53),  # 52.5 exactly, and 52.49999999999999 in floating point
    ],
)
def test_luma_by_hand(rgb, expected):
    assert luma(np.array([[rgb]], np.uint8)).tolist() == [[expected]]


def test_luma_is_scikit_images_rounded():
    rgb = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    actual = luma(rgb)
    assert actual.dtype == np.uint8
    exact = rgb2ycbcr(rgb)[..., 0]
    np.testing.assert_array_equal(actual, np.floor(exact + 0.5 + 1e-9))
    assert (actual != exact.astype(np.uint8)).mean() > 0.4  # truncated instead
    full_range = rgb @ [0.299, 0.587, 0.114]
    assert np.abs(actual - full_range).mean() > 5
    with pytest.raises(ValueError, match="not uint8"):
        luma(rgb / 255)


def unaligned(rows: int = 3, columns: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A darker photograph that is off by some pixels, and its target, 128 x 128."""
    unit = PHOTOGRAPH.astype(np.float32) / 255
    restored = 0.7 * unit[20 - rows : 148 - rows, 20 + columns : 148 + columns]
    return restored, np.ascontiguousarray(unit[20:148, 20:148])


def test_alignment_finds_place_and_intensity():
    restored, target = unaligned()
    aligned, masked, mask = align(restored, target)
    # What the shifted photograph does not have: 3 rows below and 2 columns on the left.
    expected = np.ones((128, 128), bool)
    expected[-3:] = expected[:, :2] = False
    np.testing.assert_array_equal(mask, expected)
    assert not aligned[~mask].any()
    np.testing.assert_array_equal(masked, target * mask[..., None])
    # Intensities are matched before alignment, so that a factor below 1 is left.
    gain = (restored * target).sum() / (restored**2).sum()
    assert np.abs(aligned - gain * 0.7 * masked).mean() < 0.005
    assert psnr(restored, target, 1.0) < 15 and ssim(restored, target, 1.0) < 0.2
    assert psnr(aligned, masked, 1.0, mask) > 28 and ssim(aligned, masked, 1.0, mask) > 0.99


def test_intensity_is_matched():
    """However dark the restored image was."""
    restored, target = unaligned()
    np.testing.assert_allclose(align(restored / 2, target)[0], align(restored, target)[0], atol=1e-4)


def test_alignment_is_cubic():
    """Half a pixel costs sharpness: 0.85, but 0.73 by linear interpolation and 0.64 by the nearest pixel."""
    unit = PHOTOGRAPH.astype(np.float32) / 255
    moved = shift(unit, (0.4, -1.5, 0), order=5, mode="nearest").clip(0, 1)
    aligned, masked, mask = align(moved[10:150, 10:170], unit[10:150, 10:170])
    assert ssim(aligned, masked, 1.0, mask) > 0.84


def test_masked_figures_are_realblurs():
    """Sums over the mask, not means over the image, where what is missing would count as equal."""
    aligned, masked, mask = align(*unaligned(9, 7))
    three = np.repeat(mask[..., None], 3, axis=2)
    a, b = aligned.astype(np.float64), masked.astype(np.float64)
    expected = 10 * np.log10(three.sum() / ((a - b) ** 2).sum())
    assert psnr(aligned, masked, 1.0, mask) == pytest.approx(expected, abs=1e-9)
    assert psnr(aligned, masked, 1.0) > expected + 0.3

    def realblurs_ssim(*values: np.ndarray) -> float:
        ssim_map = scikit_image_ssim(*values, 1.0, full=True)[1]
        inner = three[5:-5, 5:-5]
        return np.mean((ssim_map[5:-5, 5:-5] * inner).sum((0, 1)) / inner.sum((0, 1)))

    assert ssim(aligned, masked, 1.0, mask) == pytest.approx(realblurs_ssim(a, b), abs=1e-10)
    assert ssim(aligned, masked, 1.0) > realblurs_ssim(a, b) + 1e-4


def test_images_that_cannot_be_aligned():
    restored, target = unaligned()
    with pytest.raises(MaximirError, match="cannot be aligned to its target: it is black"):
        align(np.zeros_like(restored), target)
    with pytest.raises(MaximirError, match="OpenCV cannot align the restored image to its target: "):
        align(np.full_like(restored, 0.5), target)


def test_alignment_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MaximirError, match=r"needs OpenCV: pip install 'maximir\[evaluate\]'"):
        align(*unaligned())
