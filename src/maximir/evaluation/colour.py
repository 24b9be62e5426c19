"""Errors of colour beside PSNR: a cast costs few decibels, but people see it first.

Brightness is matched first, because the light of a dark or hazy scene is ambiguous: the restored image is
scaled so that its mean equals the target's (the "GT mean" of the tables for low light).
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np

from maximir.errors import MaximirError
from maximir.pixels import to_unit

GREY = 4.0  # greatest chroma of a grey, in Lab
SATURATED = 20.0  # least chroma of a colour whose hue counts
FEW = 0.01  # share of the pixels below which a figure is not meaningful


class ColourError(NamedTuple):
    """The distance of an image's colours from those of its target.

    Attributes:
        delta_e: mean CIEDE2000 difference; 1 is just visible, 0 is equal.
        hue: mean difference of hue in degrees, over saturated pixels of the target; None: there are too few.
        cast: mean chroma (Lab) of pixels that are grey in the target; None: there are too few.
    """

    delta_e: float
    hue: float | None
    cast: float | None


def colour_error(image: np.ndarray, target: np.ndarray) -> ColourError:
    """Measure the colours of an image after matching its brightness.

    Args:
        image, target: sRGB [H, W, 3], uint8 or uint16, or floats, which are clipped to [0, 1].

    Raises:
        MaximirError: scikit-image is not installed.
    """
    check_colour_metrics()
    from skimage.color import deltaE_ciede2000, rgb2lab

    image, target = (np.clip(to_unit(each), 0, 1).astype(np.float64) for each in (image, target))
    mean = image.mean()
    matched = np.clip(image * (target.mean() / mean), 0, 1) if mean > 0 else image
    lab, goal = rgb2lab(matched), rgb2lab(target)
    (chroma, hue), (goal_chroma, goal_hue) = map(_polar, (lab, goal))
    turn = np.abs((hue - goal_hue + 180) % 360 - 180)
    return ColourError(
        float(deltaE_ciede2000(goal, lab).mean()),  # type: ignore[no-untyped-call]
        _mean(turn, goal_chroma >= SATURATED),
        _mean(chroma, goal_chroma <= GREY),
    )


def check_colour_metrics() -> None:
    """Raise MaximirError if scikit-image is not installed."""
    if importlib.util.find_spec("skimage") is None:
        raise MaximirError(
            "errors of colour need scikit-image: pip install 'maximir[evaluate]', or leave out --colour"
        )


def _polar(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return chroma, and hue in degrees."""
    a, b = lab[..., 1], lab[..., 2]
    return np.hypot(a, b), np.degrees(np.arctan2(b, a))


def _mean(values: np.ndarray, where: np.ndarray) -> float | None:
    return float(values[where].mean()) if where.mean() >= FEW else None
