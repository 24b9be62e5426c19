"""Rain on a clean photograph: streaks in layers, as in the renderings that the field trains on.

The datasets have two kinds: separate streaks with their own length, width and slant (Rain100L with one
direction, Rain100H with several), and noise blurred along one direction, a fine dense grain (Rain1400).
Drops on the lens are in `raindrops`.
"""

from __future__ import annotations

import numpy as np

from maximir.degradations.files import as_file

STEEPEST = np.radians(45)  # largest angle of a layer from the vertical
FWHM = 2.355  # full width at half maximum of a Gaussian, in standard deviations


def streaks(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    angle: float,
    length: float,
    width: float,
    brightness: float,
    coverage: float,
    jitter: float = 0.03,
) -> np.ndarray:
    """Draw one layer of separate streaks, float32 [H, W] in [0, 1].

    Args:
        angle: from the vertical in radians; `jitter` is its standard deviation between streaks.
        length, width: typical values in pixels; the width is that at half brightness.
        brightness: of a typical streak at its centre.
        coverage: share of the pixels in streaks if none overlapped.
    """
    height, across = shape
    # Streaks may begin outside: add a frame of half a length in y, and of the slant's extent in x.
    reach_y = 0.7 * length + 2
    reach_x = reach_y * abs(np.tan(angle)) + width
    area = (height + 2 * reach_y) * (across + 2 * reach_x)
    n = rng.poisson(coverage * area / (length * width))
    slope = np.tan(angle + jitter * rng.standard_normal((n, 1), dtype=np.float32))
    cosine = 1 / np.sqrt(1 + slope**2)
    half = 0.5 * length * cosine * rng.uniform(0.6, 1.4, (n, 1)).astype(np.float32)
    sigma = width / FWHM * rng.uniform(0.7, 1.3, (n, 1)).astype(np.float32)
    peak = np.minimum(brightness * rng.uniform(0.5, 1.5, (n, 1)).astype(np.float32), 1)
    # A pixel averages over its own width, which widens and dims thinner streaks.
    wide = np.sqrt(sigma**2 + np.float32(1 / 12))
    peak *= sigma / wide
    y0 = rng.uniform(-reach_y, height + reach_y, (n, 1)).astype(np.float32)
    x0 = rng.uniform(-reach_x, across + reach_x, (n, 1)).astype(np.float32)

    # Every streak crosses a few rows: [streaks, rows]. Crossings inside the picture: [crossings, 1].
    rows = np.floor(y0) + np.arange(-np.ceil(reach_y), np.ceil(reach_y) + 1, dtype=np.float32)
    centre = x0 + (rows - y0) * slope
    taper = np.clip((half - np.abs(rows - y0)) / (0.25 * half + 1) + 0.5, 0, 1)
    side = int(np.ceil(1.3 * width + 0.5))  # columns on either side of the centre, and of the canvas
    inside = (taper > 0) & (rows >= 0) & (rows < height) & (centre >= -side) & (centre < across + side)
    streak = np.nonzero(inside)[0]
    row, middle, peaks = (values[inside][:, None] for values in (rows, centre, peak * taper))
    columns = np.floor(middle) + np.arange(-side, side + 1, dtype=np.float32)
    off = (columns - middle) * (cosine / wide)[streak]
    canvas = across + 4 * side  # with space for streaks that are partly outside
    index = row.astype(np.intp) * canvas + (columns + 2 * side).astype(np.intp)
    values = peaks * np.exp(-0.5 * off**2)
    layer = np.bincount(index.ravel(), values.ravel(), minlength=height * canvas).reshape(height, canvas)
    return np.minimum(layer[:, 2 * side : 2 * side + across], 1).astype(np.float32)


def grain(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    angle: float,
    length: float,
    width: float,
    brightness: float,
    density: float,
) -> np.ndarray:
    """Draw one layer of fine dense streaks: sparse noise blurred along `angle`; float32 [H, W] in [0, 1].

    Args:
        angle, length, width, brightness: as for `streaks`.
        density: share of the pixels at which a streak begins.
    """
    drops = rng.random(shape, dtype=np.float32)
    drops = np.where(drops < density, drops / density, 0)
    fy = np.fft.fftfreq(shape[0])[:, None].astype(np.float32)
    fx = np.fft.rfftfreq(shape[1])[None].astype(np.float32)
    # The transforms of a line and of its soft profile are known in closed form, so no kernel is drawn.
    line = np.sinc(length * (fx * np.sin(angle) + fy * np.cos(angle)))
    profile = np.exp(-2 * (np.pi * width / FWHM) ** 2 * (fx**2 + fy**2))
    layer = np.fft.irfft2(np.fft.rfft2(drops) * line * profile, shape)
    layer -= layer.mean()  # the mean would be a veil, not rain
    layer *= brightness / max(float(np.quantile(layer, 0.99)), 1e-6)
    return np.clip(layer, 0, 1).astype(np.float32)


def rain_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw the combined light of all streaks, float32 [H, W] in [0, 1]."""
    kind = rng.choice(["light", "heavy", "fine"], p=[0.4, 0.3, 0.3])
    main = float(np.clip(rng.normal(0, np.radians(17)), -STEEPEST, STEEPEST))
    count = int(rng.integers(3, 6)) if kind == "heavy" else int(rng.integers(1, 3))
    rest = np.ones(shape, np.float32)  # share that the streaks leave dark
    scale = np.exp(rng.uniform(np.log(0.4), np.log(1.3)))  # size of the nearest streaks
    for number in range(count):
        depth = 0.75**number  # far layers have smaller and fainter streaks, but more of them
        spread = rng.uniform(-1, 1) * np.radians(25 if kind == "heavy" else 4) * (number > 0)
        angle = float(np.clip(main + spread, -STEEPEST, STEEPEST))
        if kind == "fine" and number == 0:
            layer = grain(
                shape,
                rng,
                angle=angle,
                length=rng.uniform(10, 50),
                width=rng.uniform(0.7, 1.6),
                brightness=rng.uniform(0.15, 0.8),
                density=np.exp(rng.uniform(np.log(0.002), np.log(0.06))),
            )
        else:
            layer = streaks(
                shape,
                rng,
                angle=angle,
                length=np.clip(rng.uniform(20, 55) * scale * depth, 6, 60),
                width=np.clip(rng.uniform(1.6, 3.0) * scale * depth, 0.7, 3.5),
                brightness=rng.uniform(0.2, 0.9) * depth,
                coverage=(rng.uniform(0.06, 0.25) if kind == "heavy" else rng.uniform(0.01, 0.12)) / depth,
            )
        rest *= 1 - layer
    return 1 - rest


def compose(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add, screen or blend the streaks [H, W] onto the image [H, W, 3]; no pixel becomes darker."""
    light = mask[..., None]
    how = rng.choice(["add", "screen", "blend"], p=[0.4, 0.3, 0.3])
    if how == "add":
        return np.minimum(image + 0.8 * light, 1)
    if how == "screen":
        return 1 - (1 - image) * (1 - light)
    colour = np.minimum(rng.uniform(0.8, 1) + rng.uniform(-0.03, 0.03, 3), 1).astype(np.float32)
    return image + light * np.maximum(colour - image, 0)


def veil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the mist of distant rain: less contrast, towards a light grey."""
    passing = np.float32(rng.uniform(0.6, 0.97))
    return image * passing + np.float32(rng.uniform(0.65, 0.95)) * (1 - passing)


def rain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add rain and save as a file: float32 [H, W, 3] in [0, 1], sRGB-encoded, in and out."""
    wet = compose(image, rain_mask(image.shape[:2], rng), rng)
    if rng.random() < 0.3:
        wet = veil(wet, rng)
    return as_file(wet.astype(np.float32), rng)
