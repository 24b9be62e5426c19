"""Image quality by stated conventions: PSNR, two kinds of SSIM, luma, and RealBlur's alignment.

Everything is computed in float64 and piece by piece, so large images need little additional memory.
`maximir.evaluation.protocols` lists the functions behind each published table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from maximir.errors import MaximirError

RADIUS = 5  # of the Gaussian window of SSIM, in pixels
WINDOW = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * 1.5**2))
WINDOW /= WINDOW.sum()
TILE = (16, 512)  # rows and columns computed at once, small enough for the processor's cache
Tile = tuple[slice, slice]
ECC_ITERATIONS = 100
ECC_BLUR = 5  # side in pixels of the Gaussian filter applied first


def psnr(
    image: np.ndarray, reference: np.ndarray, peak: float = 255.0, mask: np.ndarray | None = None
) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels and channels; inf for equal images.

    Args:
        image, reference: same shape [H, W] or [H, W, C], values in [0, peak].
        mask: bool [H, W]; only pixels where it is true count.

    Raises:
        ValueError: the shapes differ.
        MaximirError: the mask is empty.
    """
    _check_shapes("psnr", image, reference)
    squares = (
        (tile, (image[tile].astype(np.float64) - reference[tile]) ** 2) for tile in _tiles(*image.shape[:2])
    )
    error = _mean(squares, mask)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(
    image: np.ndarray, reference: np.ndarray, peak: float = 255.0, mask: np.ndarray | None = None
) -> float:
    """Return the structural similarity of Wang et al. 2004, mean over window positions and channels.

    An 11×11 Gaussian window of sigma 1.5, K = (0.01, 0.03), population covariance, and only windows inside
    the image. It equals Wang's `ssim_index.m` per channel (which does not shrink large images as his later
    `ssim.m` does), and scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False`.

    Args:
        image, reference: same shape [H, W] or [H, W, C], values in [0, peak].
        mask: bool [H, W]; only windows with their centre in it count.

    Raises:
        ValueError: the shapes differ.
        MaximirError: a side below 11 pixels, or no window counts.
    """
    _check_shapes("ssim", image, reference)
    height, width = image.shape[:2]
    if min(height, width) < len(WINDOW):
        raise MaximirError(f"SSIM needs sides of at least {len(WINDOW)} pixels, not {width}×{height}")
    return _mean(_ssim_map(np.atleast_3d(image), np.atleast_3d(reference), peak), _inner(mask))


def has_ssim(image: np.ndarray, mask: np.ndarray | None = None) -> bool:
    """Return True if the window of `ssim` fits into the image with its centre in the mask."""
    inner = _inner(mask)
    return min(image.shape[:2]) >= len(WINDOW) and (inner is None or bool(inner.any()))


def ssim_volume(image: np.ndarray, reference: np.ndarray, peak: float = 255.0) -> float:
    """Return the structural similarity as MATLAB's `ssim` computes it for colour images: as a volume.

    The window is an 11×11×11 Gaussian of sigma 1.5 that also mixes the channels; borders are replicated, and
    the whole map counts. MATLAB computes in single precision for single images; this does not.

    Args:
        image, reference: same shape [H, W, C], or [H, W] for MATLAB's result for grey images; values in
            [0, peak].

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes("ssim_volume", image, reference)
    border = [(RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)]
    image, reference = (np.pad(np.atleast_3d(each), border, mode="edge") for each in (image, reference))
    return _mean(_ssim_map(image, reference, peak, across=True))


def luma(rgb: np.ndarray) -> np.ndarray:
    """Return Y of MATLAB's `rgb2ycbcr` (BT.601, black is 16, white 235): uint8 [H, W, 3] → [H, W].

    16 + (65.481 R + 128.553 G + 24.966 B) / 255, rounded half up, exact by integer arithmetic. 194 of the 2²⁴
    colours lie on a half, where MATLAB's own floating-point sum may fall on either side.
    """
    if rgb.dtype != np.uint8:
        raise ValueError(f"luma: {rgb.dtype}, not uint8")
    red, green, blue = np.moveaxis(rgb, -1, 0).astype(np.int32)
    return ((21827 * red + 42851 * green + 8322 * blue + 42500) // 85000 + 16).astype(np.uint8)


def align(restored: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Align by RealBlur's method, because its blurred and sharp photographs were not taken at the same time.

    The restored image is scaled to the target's intensity (least squares, one factor) and moved onto it by
    the homography that OpenCV's ECC finds from the identity in 100 iterations; cubic interpolation. This
    follows RealBlur's `evaluation_RealBlur_ecc.py`, which requires OpenCV 4.2.0.

    Args:
        restored, target: float32 [H, W, 3] in [0, 1].

    Returns:
        The aligned, unclipped restored image and the target, both black outside the mask; and the mask, bool
        [H, W], true where the aligned image has pixels. For `psnr` and `ssim` with peak 1.

    Raises:
        ValueError: the shapes differ.
        MaximirError: OpenCV is not installed, or finds no alignment.
    """
    _check_shapes("align", restored, target)
    try:
        import cv2
    except ImportError:
        raise MaximirError(
            "aligning restored images to their targets needs OpenCV: pip install 'maximir[evaluate]'"
        ) from None
    energy = np.sum(restored**2, dtype=np.float64)
    if energy == 0:
        raise MaximirError("the restored image cannot be aligned to its target: it is black")
    scaled = restored * np.float32(np.sum(restored * target, dtype=np.float64) / energy)
    goal, start = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (target, scaled))
    everywhere = np.ones(goal.shape, np.uint8)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_ITERATIONS, 0)
    unmoved = np.eye(3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(
            goal, start, unmoved, cv2.MOTION_HOMOGRAPHY, criteria, everywhere, ECC_BLUR
        )
    except cv2.error as error:
        raise MaximirError(f"OpenCV cannot align the restored image to its target: {error.err}") from None
    size = target.shape[1::-1]
    inverse = cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(
        scaled, warp, size, flags=cv2.INTER_CUBIC | inverse, borderMode=cv2.BORDER_REFLECT
    )
    mask = cv2.warpPerspective(everywhere, warp, size, flags=cv2.INTER_NEAREST | inverse) > 0
    return moved * mask[..., None], target * mask[..., None], mask


def _inner(mask: np.ndarray | None) -> np.ndarray | None:
    """Return the part of the mask where the window's centre may be."""
    return None if mask is None else mask[RADIUS:-RADIUS, RADIUS:-RADIUS]


def _check_shapes(name: str, image: np.ndarray, reference: np.ndarray) -> None:
    if image.shape != reference.shape:
        raise ValueError(f"{name}: shapes differ: {image.shape} and {reference.shape}")


def _tiles(height: int, width: int) -> Iterator[Tile]:
    rows, columns = TILE
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, top + rows), slice(left, left + columns)


def _mean(parts: Iterable[tuple[Tile, np.ndarray]], mask: np.ndarray | None = None) -> float:
    """Average tiles of values, optionally only where the mask [H, W] is true."""
    total, count = 0.0, 0
    for tile, values in parts:
        counted = values if mask is None else values[mask[tile]]
        total += float(counted.sum())
        count += counted.size
    if not count:
        raise MaximirError("no pixels are left to compare")
    return total / count


def _ssim_map(
    image: np.ndarray, reference: np.ndarray, peak: float, across: bool = False
) -> Iterator[tuple[Tile, np.ndarray]]:
    """Yield SSIM for all window positions in [H, W, C] as tiles of a map [H - 10, W - 10, C].

    Args:
        across: also smooth across the channels, with the first and last replicated.
    """
    height, width, channels = image.shape
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    taps = np.arange(channels)[:, None] + np.arange(-RADIUS, RADIUS + 1)
    mix = WINDOW @ np.eye(channels)[taps.clip(0, channels - 1)]  # [to, from]
    for tile in _tiles(height - 2 * RADIUS, width - 2 * RADIUS):
        around = tuple(slice(side.start, side.stop + 2 * RADIUS) for side in tile)
        a, b = image[around].astype(np.float64), reference[around].astype(np.float64)
        # SSIM needs only the sum of the two variances, so four maps are smoothed instead of five.
        maps = _smooth(_smooth(np.stack([a, b, a * a + b * b, a * b]), axis=1), axis=2)
        mean_a, mean_b, power, product = maps @ mix.T if across else maps
        means_product, means_power = mean_a * mean_b, mean_a**2 + mean_b**2
        covariance, variances = product - means_product, power - means_power
        likeness = (2 * means_product + c1) * (2 * covariance + c2)
        yield tile, likeness / ((means_power + c1) * (variances + c2))


def _smooth(values: np.ndarray, axis: int) -> np.ndarray:
    """Apply the symmetric Gaussian window along one axis, inside only: 10 fewer values."""
    ahead = np.moveaxis(values, axis, 0)
    count = len(ahead) - 2 * RADIUS
    smooth = WINDOW[RADIUS] * ahead[RADIUS : RADIUS + count]
    for tap in range(RADIUS):
        mirrored = len(WINDOW) - 1 - tap
        smooth += WINDOW[tap] * (ahead[tap : tap + count] + ahead[mirrored : mirrored + count])
    return np.moveaxis(smooth, 0, axis)
