from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from maximir.errors import MaximirError, UsageError
from maximir.evaluation.protocols import PROTOCOLS
from maximir.metrics import align, psnr, ssim, ssim_volume

TARGET = np.asarray(Image.open(Path(__file__).parents[2] / "examples" / "coffee.png"))[40:140, 100:220]
# As a model gives it: with values between the levels, and outside [0, 1] (coffee.png has black and white).
RESTORED = (TARGET / 255 + np.random.default_rng(0).normal(0, 0.05, TARGET.shape)).astype(np.float32)
RGB_TRUNCATED = "RGB PSNR / SSIM (Wang, mean over channels) of 8-bit values, truncated"


def expected(values: np.ndarray, target: np.ndarray, peak: float) -> tuple[float, float]:
    """PSNR and Wang's SSIM from scikit-image."""
    values, target = values.astype(np.float64), target.astype(np.float64)
    index = structural_similarity(
        values,
        target,
        data_range=peak,
        channel_axis=-1 if values.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return peak_signal_noise_ratio(target, values, data_range=peak), index


def file(restored: np.ndarray, *, rounded: bool = False) -> np.ndarray:
    """By integers, one value after the other."""
    levels = [min(max(float(np.float32(v) * np.float32(255)), 0), 255) for v in restored.ravel()]
    return np.array([int(v + 0.5 * rounded) for v in levels], np.uint8).reshape(restored.shape)


def y(rgb: np.ndarray) -> np.ndarray:
    return np.floor(rgb2ycbcr(rgb)[..., 0] + 0.5 + 1e-9)


def test_the_sample_can_tell():
    assert (RESTORED < 0).mean() > 0.005 and (RESTORED > 1).mean() > 0.005


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("official", RESTORED.astype(np.float64) * 255),
        ("truncated", file(RESTORED)),
        ("rounded", file(RESTORED, rounded=True)),
        *((name, file(RESTORED)) for name in ("sots", "raindrop", "lol", "fivek", "reds")),
    ],
)
def test_rgb_protocols(name, values):
    actual = PROTOCOLS[name].measure(RESTORED, TARGET)
    assert actual == pytest.approx(expected(values, TARGET, 255), abs=1e-6)


def test_rain_is_luma_of_truncated_files():
    actual = PROTOCOLS["rain"].measure(RESTORED, TARGET)
    assert actual == pytest.approx(expected(y(file(RESTORED)), y(TARGET), 255), abs=1e-9)


@pytest.mark.parametrize("name", ["gopro", "hide"])
def test_gopro_and_hide_are_truncated_with_the_ssim_of_the_volume(name):
    values = file(RESTORED)
    by_hand = peak_signal_noise_ratio(TARGET, values), ssim_volume(values, TARGET)
    assert PROTOCOLS[name].measure(RESTORED, TARGET) == pytest.approx(by_hand, abs=1e-9)


def test_sidd_is_clipped_floats_of_full_scale_1():
    values, target = RESTORED.clip(0, 1), TARGET / 255
    by_hand = psnr(values, target, 1.0), ssim_volume(values, target, 1.0)
    assert PROTOCOLS["sidd"].measure(RESTORED, TARGET) == pytest.approx(by_hand, abs=1e-6)


def test_realblur_aligns_truncated_files():
    moved = 0.8 * np.roll(RESTORED, (2, -3), axis=(0, 1))
    aligned, masked, mask = align(file(moved).astype(np.float32) / 255, (TARGET / 255).astype(np.float32))
    by_hand = psnr(aligned, masked, 1.0, mask), ssim(aligned, masked, 1.0, mask)
    actual = PROTOCOLS["realblur"].measure(moved, TARGET)
    assert actual == pytest.approx(by_hand, abs=1e-6)
    without = PROTOCOLS["truncated"].measure(moved, TARGET)
    assert actual[0] > without[0] + 5 and actual[1] > without[1] + 0.2


def test_a_protocol_for_another_is_another_number():
    """PSNR at least 0.01 dB apart, or SSIM 0.0005."""
    kinds = ("official", "truncated", "rounded", "rain", "gopro", "sidd", "realblur")
    scores = {name: PROTOCOLS[name].measure(RESTORED, TARGET) for name in kinds}
    for one in kinds:
        for other in kinds:
            apart = np.abs(np.subtract(scores[one], scores[other]))
            assert one == other or apart[0] > 0.01 or apart[1] > 5e-4, (one, other)
    assert scores["sidd"][0] > scores["official"][0] + 0.05  # clipping only helps
    assert scores["rain"][0] > scores["truncated"][0] + 1  # noise of three channels averages out


def test_truncating_by_hand():
    target = np.full((16, 16, 3), 100, np.uint8)
    restored = (target + 0.75) / 255
    assert PROTOCOLS["truncated"].measure(restored, target) == (float("inf"), 1)
    assert PROTOCOLS["rounded"].measure(restored, target)[0] == pytest.approx(20 * np.log10(255))
    assert PROTOCOLS["official"].measure(restored, target)[0] == pytest.approx(20 * np.log10(255 / 0.75))
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    unit = levels.astype(np.float32) / np.float32(255)
    assert PROTOCOLS["truncated"].measure(unit, levels) == (float("inf"), 1)  # no level is lost


def test_luma_by_hand():
    target = np.zeros((16, 16, 3), np.uint8)
    red = target.copy()
    red[..., 0] = 255
    assert PROTOCOLS["rain"].measure(red, target)[0] == pytest.approx(20 * np.log10(255 / (81 - 16)))


@pytest.mark.parametrize("name", ["official", "truncated", "rounded", "lol"])
def test_files_are_not_quantised_again(name):
    restored = file(RESTORED, rounded=True)
    assert PROTOCOLS[name].measure(restored, TARGET) == pytest.approx(expected(restored, TARGET, 255))


@pytest.mark.parametrize("name", ["official", "sidd"])
def test_sixteen_bits_are_measured_as_floats(name):
    target = TARGET.astype(np.uint16) * 257
    wide = PROTOCOLS[name].measure(RESTORED, target)
    assert wide == pytest.approx(PROTOCOLS[name].measure(RESTORED, TARGET), abs=1e-6)
    as_file = np.round(RESTORED.clip(0, 1) * 65535).astype(np.uint16)
    assert PROTOCOLS["sidd"].measure(as_file, target) == pytest.approx(
        PROTOCOLS["sidd"].measure(RESTORED, TARGET), abs=1e-3
    )


def test_doubles_are_measured_as_single():
    for protocol in (PROTOCOLS["official"], PROTOCOLS["truncated"]):
        assert protocol.measure(RESTORED.astype(np.float64), TARGET) == protocol.measure(RESTORED, TARGET)


@pytest.mark.parametrize(
    ("restored", "target", "words"),
    [
        (RESTORED[1:], TARGET, r"must both be \[H, W, 3\], but are \[99, 120, 3\] and \[100, 120, 3\]"),
        (RESTORED[..., 0], TARGET[..., 0], r"must both be \[H, W, 3\]"),
        (TARGET, TARGET.astype(np.uint16), "pixels are uint8, but the target's are uint16"),
        (TARGET.astype(np.uint16), TARGET, "pixels are uint16, but the target's are uint8"),
        (RESTORED, TARGET.astype(np.uint16), "truncated measures 8-bit values, but the target is uint16"),
        (RESTORED, TARGET / 255, "targets must be uint8 or uint16, not float64"),
        (RESTORED * np.nan, TARGET, "not finite"),
        (RESTORED * 255, TARGET, "divide it by its full scale"),
    ],
)
def test_bad_pairs(restored, target, words):
    with pytest.raises(MaximirError, match=words):
        PROTOCOLS["truncated"].measure(restored, target)


@pytest.mark.parametrize("side", [1, 5, 10, 11])
def test_images_smaller_than_the_window_have_a_psnr_but_no_ssim_of_wang(side):
    for name in ("truncated", "rounded", "rain"):
        psnr, ssim = PROTOCOLS[name].measure(RESTORED[:side], TARGET[:side])
        assert 5 < psnr < 60 and (ssim is None) == (side < 11)
    psnr, ssim = PROTOCOLS["gopro"].measure(RESTORED[:side], TARGET[:side])  # MATLAB's repeats the borders
    assert ssim is not None and not np.isnan(ssim)


def test_conventions_follow_the_fields():
    assert PROTOCOLS["truncated"].convention == PROTOCOLS["lol"].convention == RGB_TRUNCATED
    assert PROTOCOLS["rain"].convention == (
        "Y (BT.601, 8 bits) PSNR / SSIM (Wang) of 8-bit values, truncated; mean of the sets' means"
    )
    assert PROTOCOLS["sidd"].convention == (
        "RGB PSNR / SSIM (MATLAB's, of the volume) of floats, clipped to [0, 1]"
    )
    assert PROTOCOLS["realblur"].convention == (
        RGB_TRUNCATED + ", aligned to the target (intensity, then ECC homography), where they overlap"
    )
    rounded = replace(PROTOCOLS["lol"], pixels="rounded")
    assert rounded.convention == RGB_TRUNCATED.replace("truncated", "rounded")
    assert rounded.measure(RESTORED, TARGET) == PROTOCOLS["rounded"].measure(RESTORED, TARGET)


def test_conventions_differ_where_the_measure_does():
    measures = {
        tuple(getattr(each, field) for field in ("pixels", "colour", "ssim", "align", "mean_of_sets"))
        for each in PROTOCOLS.values()
    }
    assert len({each.convention for each in PROTOCOLS.values()}) == len(measures) == 7


def test_choices_that_do_not_go_together():
    with pytest.raises(UsageError, match="rain: luma needs 8-bit values"):
        replace(PROTOCOLS["rain"], pixels="float")
    with pytest.raises(UsageError, match="realblur: aligned images are measured in RGB"):
        replace(PROTOCOLS["realblur"], ssim="volume")


def test_every_protocol_has_its_name_and_source():
    assert {name for name, each in PROTOCOLS.items() if each.mean_of_sets} == {"rain"}
    for name, each in PROTOCOLS.items():
        assert each.name == name and each.summary and each.source
