"""Which is better: intervals as SciPy's, over originals and not over images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from maximir.errors import MaximirError
from maximir.evaluation.compare import compare
from maximir.evaluation.report import comparison_tables, extremes
from maximir.evaluation.scores import Score

INF = float("inf")


def scores(psnrs, ssims=None, *, each=1, **changes):
    """Scores of images, of which `each` neighbours have the same original."""
    ssims = np.linspace(0.5, 0.9, len(psnrs)) if ssims is None else ssims
    return [
        replace(
            Score(f"i{k}", "", psnr, ssim, 20.0 + k, 0.5, 9, 9, 0.0, "", f"original{k // each}"), **changes
        )
        for k, (psnr, ssim) in enumerate(zip(psnrs, ssims, strict=True))
    ]


@pytest.fixture
def samples():
    """PSNR and SSIM of A and B: B is a little better, and the images are very different."""
    rng = np.random.default_rng(0)
    a = rng.uniform([[20], [0.5]], [[40], [0.9]], (2, 12))
    return a, a + rng.normal([[0.3], [0.0]], [[0.2], [0.01]], (2, 12))


def test_the_interval_is_that_of_the_paired_t_test(samples):
    a, b = samples
    comparison = compare(scores(*a), scores(*b)[::-1])  # paired by name, not by order
    assert comparison.only == (0, 0) and len(comparison.pairs) == 12
    for k, difference in enumerate(comparison.differences):
        interval = stats.ttest_rel(b[k], a[k]).confidence_interval(0.95)
        assert [difference.low, difference.high] == pytest.approx([interval.low, interval.high], rel=1e-12)
        assert difference.mean == pytest.approx((b[k] - a[k]).mean(), rel=1e-12)
        assert (difference.a, difference.b) == pytest.approx((a[k].mean(), b[k].mean()), rel=1e-12)
        assert (difference.better, difference.worse) == ((b[k] > a[k]).sum(), (b[k] < a[k]).sum())
        assert difference.originals == 12
        unpaired = stats.ttest_ind(b[k], a[k]).confidence_interval(0.95)  # the control: pairs matter
        assert interval.high - interval.low < 0.2 * (unpaired.high - unpaired.low)
    assert [difference.verdict for difference in comparison.differences] == [
        "B is better",
        "no significant difference",
    ]
    assert compare(scores(*b), scores(*a)).differences[0].verdict == "A is better"


def test_images_of_one_original_count_as_one():
    """Ten hazes of each of four scenes; the control counts them as independent, and is too sure."""
    rng = np.random.default_rng(1)
    a = rng.uniform(20, 40, 40)
    b = a + np.repeat(rng.normal(0.4, 0.5, 4), 10) + rng.normal(0, 0.05, 40)
    (psnr, _) = compare(scores(a, each=10), scores(b, each=10)).differences
    of_scenes = (b - a).reshape(4, 10).mean(axis=1)
    interval = stats.ttest_1samp(of_scenes, 0).confidence_interval(0.95)
    assert [psnr.low, psnr.high] == pytest.approx([interval.low, interval.high], rel=1e-12)
    assert psnr.originals == 4 and psnr.verdict == "no significant difference"
    (naive, _) = compare(scores(a), scores(b)).differences
    assert naive.originals == 40 and naive.verdict != psnr.verdict
    assert naive.high - naive.low < 0.5 * (psnr.high - psnr.low)


def test_each_original_has_the_same_weight():
    a, b = scores([20, 20, 20, 20]), scores([21, 21, 21, 25])
    targets = ["x", "x", "x", "y"]
    a, b = ([replace(s, target=t) for s, t in zip(each, targets, strict=True)] for each in (a, b))
    (psnr, _) = compare(a, b).differences
    assert psnr.mean == 3 and psnr.b - psnr.a == 2 and psnr.originals == 2


def test_worst_first_and_equals():
    comparison = compare(scores([20, 30, 40]), scores([20.5, 29, 40]))
    assert [a.name for a, _ in comparison.pairs] == ["i1", "i2", "i0"]
    assert (comparison.differences[0].better, comparison.differences[0].worse) == (1, 1)
    ssim = comparison.differences[1]
    assert (ssim.low, ssim.high, ssim.verdict) == (0, 0, "no significant difference")


def test_one_original_tells_nothing():
    for count in (1, 3):
        (psnr, _) = compare(scores([20] * count, each=3), scores([21, 22, 23][:count], each=3)).differences
        assert (psnr.low, psnr.high, psnr.originals) == (None, None, 1)
        assert psnr.verdict == "one original is not enough"


def test_exact_images_have_no_difference_if_both_are_exact():
    """They are in no mean, and said; B is better where it alone is exact."""
    (psnr, ssim) = compare(scores([INF, 30, 31]), scores([INF, 31, 33])).differences
    assert (psnr.mean, psnr.a, psnr.b, psnr.uncounted) == (1.5, 30.5, 32, 1)
    assert ssim.uncounted == 0 and ssim.originals == 3
    for a, b, better, worse in (([INF, 30, 31], [29, 30, 31], 0, 1), ([29, 30, 31], [INF, 30, 31], 1, 0)):
        comparison = compare(scores(a), scores(b))
        (psnr, _) = comparison.differences
        assert (psnr.better, psnr.worse, psnr.uncounted, psnr.mean) == (better, worse, 1, 0)
        assert extremes(comparison, 1)[0 if worse else -1].endswith(" i0")
    comparison = compare(scores([INF, INF]), scores([INF, INF]))
    (psnr, _) = comparison.differences
    assert (psnr.a, psnr.mean, psnr.low, psnr.originals, psnr.uncounted) == (None, None, None, 0, 2)
    assert psnr.verdict == "no image has a finite value"
    assert extremes(comparison, 1) == ["+0.000 dB  inf → inf  i0", "+0.000 dB  inf → inf  i1"]
    (table,) = comparison_tables(comparison)
    assert "in no mean" in list(table.columns[0].cells) and "nan" not in str(list(table.columns[1].cells))


def test_smaller_errors_of_colour_are_better():
    a = [replace(s, delta_e=6.0 + k, hue=10.0, cast=None) for k, s in enumerate(scores([20, 21, 22]))]
    b = [replace(s, delta_e=4.0 + k, hue=10.0 + k, cast=None) for k, s in enumerate(scores([20, 21, 22]))]
    comparison = compare(a, b)
    _, _, delta_e, hue, cast = comparison.differences
    assert (delta_e.a, delta_e.b, delta_e.mean) == (7, 5, -2)
    assert (delta_e.better, delta_e.worse, delta_e.verdict) == (3, 0, "B is better")
    assert (hue.better, hue.worse, hue.verdict) == (0, 2, "no significant difference")
    assert (cast.uncounted, cast.verdict) == (3, "no image has a finite value")
    assert compare(b, a).differences[2].verdict == "A is better"
    tables = comparison_tables(comparison)
    assert [[column.header for column in table.columns] for table in tables] == [
        ["", "PSNR", "SSIM"],
        ["", "ΔE", "hue", "cast"],
    ]
    assert len(compare(a, scores([20, 21, 22])).differences) == 2  # measured in one only


def test_images_too_small_for_ssim_are_in_no_mean_of_it():
    a, b = scores([20, 21, 22], [None, 0.5, 0.6]), scores([21, 22, 23], [None, 0.6, 0.7])
    (psnr, ssim) = compare(a, b).differences
    assert (psnr.originals, psnr.uncounted) == (3, 0)
    assert (ssim.a, ssim.mean, ssim.originals, ssim.uncounted) == pytest.approx((0.55, 0.1, 2, 1))


def test_what_only_one_has_is_counted():
    comparison = compare(scores([20, 21, 22, 23]), scores([30, 31]))
    assert comparison.only == (2, 0) and len(comparison.pairs) == 2
    with pytest.raises(MaximirError, match="no image in common"):
        compare(scores([20, 21]), [])
    with pytest.raises(MaximirError, match="no image in common"):
        compare(scores([20]), scores([20], name="another"))


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"width": 10}, "sizes"),
        ({"input_psnr": 25.0}, "inputs"),
        ({"input_psnr": INF}, "inputs"),
        ({"input_psnr": 20.0 + 1e-6}, None),  # the same noise, on another machine
        ({"input_psnr": None, "input_ssim": None}, None),  # only restored images and originals
    ],
)
def test_images_that_are_not_the_same_are_refused(changes, differ):
    a, b = scores([20]), scores([21], **changes)
    if differ is None:
        assert compare(a, b).differences[0].mean == compare(b, a).differences[0].a - 20 == 1
        return
    for one, other in ((a, b), (b, a)):
        with pytest.raises(MaximirError, match=f"i0: is not the same image in both; their {differ} differ"):
            compare(one, other)
