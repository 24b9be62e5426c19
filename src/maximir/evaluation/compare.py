"""Compare two evaluations: paired differences, image by image, with a confidence interval."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maximir.errors import MaximirError, UsageError
from maximir.evaluation.scores import Score, average
from maximir.files import comparable

LEVEL = 0.95
SAME = 0.001  # dB: noise differs between machines in the last bits only
FIGURES = {"psnr": 1, "ssim": 1, "delta_e": -1, "hue": -1, "cast": -1}  # 1: more is better; -1: less is


@dataclass(frozen=True)
class Difference:
    """Differences B - A of one figure, over the images in both evaluations.

    Attributes:
        figure: one of `FIGURES`.
        a, b: means over the images whose figure is finite in both; None: there is no such image.
        mean: of the differences, over originals. Images of one original (ten hazes of a scene) are not
            independent, so they count once, with their mean.
        low, high: its `LEVEL` confidence interval by Student's t; None: there is only one original.
        better, worse: images where B is better or worse than A, including those reproduced exactly by one.
        originals: number of originals.
        uncounted: images in no mean: PSNR is infinite in A or B, the image is too small for SSIM, or has no
            saturated or no grey pixels.
    """

    figure: str
    a: float | None
    b: float | None
    mean: float | None
    low: float | None
    high: float | None
    better: int
    worse: int
    originals: int
    uncounted: int

    @property
    def verdict(self) -> str:
        if self.mean is None:
            return "no image has a finite value"
        if self.low is None or self.high is None:
            return "one original is not enough"
        if self.low <= 0 <= self.high:
            return "no significant difference"
        return "B is better" if self.low * FIGURES[self.figure] > 0 else "A is better"


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same images.

    Attributes:
        pairs: (A's score, B's score) of each image in both, B's largest loss first.
        only: numbers of images only in A and only in B.
    """

    pairs: tuple[tuple[Score, Score], ...]
    differences: tuple[Difference, ...]
    only: tuple[int, int]


def compare(a: Sequence[Score], b: Sequence[Score]) -> Comparison:
    """Compare scores paired by name; their errors of colour, too, if both have them.

    Raises:
        MaximirError: there is no common image, or an image has different originals or inputs.
    """
    ours, theirs = (
        {names[score.name]: score for score in scores}
        for scores in (a, b)
        for names in [comparable(score.name for score in scores)]
    )
    names = [name for name in ours if name in theirs]
    if not names:
        raise MaximirError("the two evaluations have no image in common")
    pairs = [(ours[name], theirs[name]) for name in names]
    for one, other in pairs:
        if (one.width, one.height) != (other.width, other.height):
            raise MaximirError(f"{one.name}: is not the same image in both; their sizes differ")
        if differ(one.input_psnr, other.input_psnr):
            raise MaximirError(f"{one.name}: is not the same image in both; their inputs differ")
    pairs.sort(key=lambda pair: difference(pair, "psnr"))
    coloured = any(None not in (one.delta_e, other.delta_e) for one, other in pairs)
    figures = list(FIGURES)[: None if coloured else 2]
    return Comparison(
        tuple(pairs),
        tuple(summarise(figure, pairs) for figure in figures),
        (len(ours) - len(names), len(theirs) - len(names)),
    )


def differ(a: float | None, b: float | None) -> bool:
    """Return True if two inputs measured in the same way cannot be the same; None: there was no input."""
    return a is not None and b is not None and not math.isclose(a, b, abs_tol=SAME)


def difference(pair: tuple[Score, Score], figure: str) -> float:
    """Return B - A; 0 where both are inf or a figure is missing."""
    a, b = (getattr(score, figure) for score in pair)
    return 0.0 if a == b or None in (a, b) else float(b - a)


def is_finite(score: Score, figure: str) -> bool:
    return getattr(score, figure) not in (None, math.inf)


def summarise(figure: str, pairs: Sequence[tuple[Score, Score]]) -> Difference:
    differences = [difference(pair, figure) for pair in pairs]
    counted = [pair for pair in pairs if all(is_finite(score, figure) for score in pair)]
    by_original: dict[str, list[float]] = {}
    for pair in counted:
        by_original.setdefault(pair[0].target, []).append(difference(pair, figure))
    means = [math.fsum(values) / len(values) for values in by_original.values()]
    mean, half = average(means), half_width(means)
    return Difference(
        figure,
        average([getattr(a, figure) for a, _ in counted]),
        average([getattr(b, figure) for _, b in counted]),
        mean,
        None if mean is None or half is None else mean - half,
        None if mean is None or half is None else mean + half,
        sum(each * FIGURES[figure] > 0 for each in differences),
        sum(each * FIGURES[figure] < 0 for each in differences),
        len(means),
        len(pairs) - len(counted),
    )


def half_width(values: Sequence[float]) -> float | None:
    """Return half the confidence interval of the mean; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return float(scipy_stats().t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)


def scipy_stats() -> Any:
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as error:
        raise UsageError("comparing needs SciPy: pip install 'maximir[evaluate]'") from error
