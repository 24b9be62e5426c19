"""Drops of water on the lens or on a window pane in front of it, as in Raindrop (Qian et al. 2018).

A drop is a small wide-angle lens: it shows the whole surroundings upside down, with the sky at the bottom.
The camera focuses on the scene, so one circle of confusion blurs all drops and the images in them, while the
picture between them stays sharp. The blur also makes the smallest drops faint.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from maximir.degradations.files import as_file
from maximir.pixels import UINT8, from_unit, to_unit

DIAMETERS = (4.0, 60.0)  # pixels, of round drops
SIDE = 64  # pixels of the picture of the surroundings; the largest drops are no larger
CLASS = 1.4  # ratio between the sizes of drops that are drawn together


def outlines(
    shape: tuple[int, int], rng: np.random.Generator, *, diameter: float, spread: float, coverage: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Place drops at random and list the pixels in them, small drops first.

    Args:
        shape: height and width of the canvas, pixels.
        diameter: median in pixels.
        spread: standard deviation of the logarithm of the diameters.
        coverage: share of the pixels in drops if none overlapped.

    Returns:
        The pixels' indices into the flat canvas, int; down and right, their positions in the drop relative to
        its centre, 1 at the edge; and the numbers of their drops, int. All [N]. Where drops overlap, a pixel
        is listed once per drop.
    """
    height, width = shape
    typical = 0.25 * np.pi * diameter**2 * np.exp(2 * spread**2)  # mean area of log-normal discs
    reserve = diameter  # the border cuts drops: their centres may be outside
    n = rng.poisson(coverage * (height + 2 * reserve) * (width + 2 * reserve) / typical)
    radius = 0.5 * np.clip(diameter * np.exp(spread * rng.standard_normal(n)), *DIAMETERS)
    y0 = rng.uniform(-reserve, height + reserve, n)
    x0 = rng.uniform(-reserve, width + reserve, n)
    # Most are nearly round with any orientation; a few run down.
    runs = rng.random(n) < rng.choice([0, 0.03, 0.1])
    stretch = np.where(runs, rng.uniform(1.5, 3, n), np.exp(np.abs(0.2 * rng.standard_normal(n))))
    radius /= np.sqrt(stretch)  # keeps the area
    lean = np.where(runs, 0.1, 1.0) * rng.normal(0, 0.8, n)
    waves = np.minimum(np.abs(rng.normal(0, 0.06, (2, n))), 0.15)
    phases = rng.uniform(0, 2 * np.pi, (2, n))

    reach = radius * np.maximum(stretch, 1) * (1 + waves.sum(axis=0)) + 1
    classes = np.ceil(np.log(reach) / np.log(CLASS)).astype(int)
    parts = []
    for size in np.unique(classes):
        which = np.nonzero(classes == size)[0]
        half = int(np.ceil(CLASS**size))
        steps = np.arange(-half, half + 1)
        rows, columns = (np.round(at[which]).astype(int)[:, None] + steps for at in (y0, x0))

        def each(values: np.ndarray, which: np.ndarray = which) -> np.ndarray:
            return values[which].astype(np.float32)[:, None, None]

        y = rows[:, :, None].astype(np.float32) - each(y0)
        x = columns[:, None, :].astype(np.float32) - each(x0)
        along = (y * each(np.cos(lean)) + x * each(np.sin(lean))) / each(stretch)
        across = x * each(np.cos(lean)) - y * each(np.sin(lean))
        angle = np.arctan2(along, across)
        edge = 1 + each(waves[0]) * np.cos(2 * angle + each(phases[0]))
        edge += each(waves[1]) * np.cos(3 * angle + each(phases[1]))
        r = np.sqrt(along**2 + across**2) / (edge * each(radius))
        within = (r < 1) & ((rows >= 0) & (rows < height))[:, :, None]
        within &= ((columns >= 0) & (columns < width))[:, None, :]
        drop, row, column = np.nonzero(within)
        index = rows[drop, row] * width + columns[drop, column]
        y, x = y[drop, row, 0], x[drop, 0, column]
        scale = r[within] / np.maximum(np.hypot(y, x), 1e-3)
        parts.append((index, y * scale, x * scale, which[drop]))
    if not parts:
        none, nowhere = np.zeros(0, int), np.zeros(0, np.float32)
        return none, nowhere, nowhere, none
    index, down, right, number = (np.concatenate(values) for values in zip(*parts, strict=True))
    return index, down, right, number


def surroundings(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the view of a wide-angle lens, upright: float32 [SIDE, SIDE, 3] in [0, 1].

    The image is only the part straight ahead. The light sky above and the ground below are synthetic, since a
    crop does not show them.
    """
    ahead = Image.fromarray(from_unit(image, UINT8)).resize((12, 12), Image.Resampling.BOX)
    scene = to_unit(np.asarray(ahead.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    mean = scene.mean(axis=(0, 1))
    grey = rng.uniform(0.3, 0.55)
    ground = rng.uniform(0.25, 0.6) * mean + rng.uniform(0.45, 0.7) * grey
    light = max(rng.uniform(0.8, 1.05), float(scene.max()))
    sky = light * (1 + rng.uniform(-0.04, 0.02) * np.array([1, 0.3, -1]))
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, SIDE)], indexing="ij")
    # Roofs and trees stand out against the sky, so the horizon is not straight.
    skyline = rng.uniform(-0.35, 0.0) + 0.12 * np.sin(x * rng.uniform(2, 6) + rng.uniform(0, 6))
    share = 1 / (1 + np.exp((y - skyline) / rng.uniform(0.04, 0.12)))
    wide = ground + share[..., None] * (sky - ground)
    seen = rng.uniform(0.2, 0.7) * np.exp(-((y / 0.5) ** 2) - (x / 0.8) ** 2)
    return np.clip(wide + seen[..., None] * (scene - wide), 0, 1).astype(np.float32)


def water(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    diameter: float,
    spread: float,
    coverage: float,
    blur: float,
) -> np.ndarray:
    """Draw out-of-focus drops, float32 [H, W, 4]: their light (RGB) times their coverage, and the coverage.

    Args:
        image: the scene, float32 [H, W, 3] in [0, 1].
        diameter, spread, coverage: as for `outlines`.
        blur: sigma of the defocus in pixels.
    """
    frame = int(np.ceil(2 * blur))  # reach of the blur into the picture
    height, width = image.shape[0] + 2 * frame, image.shape[1] + 2 * frame
    index, down, right, drop = outlines(
        (height, width), rng, diameter=diameter, spread=spread, coverage=coverage
    )
    n = int(drop.max(initial=-1)) + 1
    tilt_y, tilt_x = rng.normal(0, [[0.15], [0.25]], (2, n)).astype(np.float32)
    gain = np.float32(1) + rng.uniform(-0.2, 0.12, n).astype(np.float32)
    share, sag = rng.uniform([[0.55], [0.0]], [[1.0], [0.5]], (2, n)).astype(np.float32)
    # Upside down, and wider with the distance from the centre; the top rim refracts hardly any light.
    squared = down**2 + right**2
    bend = 0.6 + 0.4 * squared
    y, x = (
        np.clip((tilt[drop] - at * bend + 1) * (SIDE / 2), 0, SIDE - 1).astype(int)
        for tilt, at in ((tilt_y, down), (tilt_x, right))
    )
    rim = np.clip(0.4 - 1.2 * down, 0, 1) * squared**2
    shade = gain[drop] * (1 - np.float32(rng.uniform(0.1, 0.7)) * rim)
    # Thin water hardly refracts: the scene shines through. Water sags, so the lower half is thicker.
    cover = np.clip(share[drop] * (1 + sag[drop] * down), 0, 1)[:, None]
    light = surroundings(image, rng).reshape(-1, 3)[y * SIDE + x] * shade[:, None]

    canvas = np.zeros((height * width, 4), np.float32)
    canvas[index] = np.concatenate([np.minimum(light, 1) * cover, cover], axis=1)
    # 8 bits are enough for a blurred image, and Pillow is several times as fast as NumPy here.
    sharp = Image.fromarray(from_unit(canvas, UINT8).reshape(height, width, 4), "RGBA")
    soft = np.asarray(sharp.filter(ImageFilter.GaussianBlur(blur)))
    return to_unit(soft[frame : height - frame, frame : width - frame])


def veil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a thin film of water between the drops: slightly soft, with slightly less contrast."""
    picture = Image.fromarray(from_unit(image, UINT8))
    soft = to_unit(np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0)))))
    blended = image + np.float32(rng.uniform(0.1, 0.7)) * (soft - image)
    passing = np.float32(rng.uniform(0.85, 1.0))
    return blended * passing + np.float32(rng.uniform(0.5, 0.9)) * (1 - passing)


def raindrops(image: np.ndarray, rng: np.random.Generator, *, veil_fraction: float = 0.25) -> np.ndarray:
    """Add drops on the lens and save as a file: float32 [H, W, 3] in [0, 1], sRGB-encoded, in and out.

    Args:
        image: upright, since drops show the sky at the bottom.
        veil_fraction: share of the images with a film of water between the drops.
    """
    diameter = np.exp(rng.uniform(np.log(5), np.log(18)))
    drops = water(
        image,
        rng,
        diameter=diameter,
        spread=rng.uniform(0.2, 0.5),
        coverage=np.exp(rng.uniform(np.log(0.03), np.log(0.45))),
        # Close panes and wide apertures make drops larger and softer.
        blur=float(np.clip(0.15 * diameter * np.exp(rng.normal(0, 0.3)), 0.8, 3.0)),
    )
    wet = veil(image, rng) if rng.random() < veil_fraction else image
    wet = wet * (1 - drops[..., 3:]) + drops[..., :3]
    return as_file(wet.astype(np.float32), rng)
