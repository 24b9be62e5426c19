import numpy as np
import pytest
import torch

from maximir.training.losses import charbonnier, colour_l1, frequency_l1, restoration_loss


def test_charbonnier_by_hand():
    restored, target = torch.tensor([0.0, 3.0]), torch.tensor([0.0, 0.0])
    assert charbonnier(restored, target).item() == pytest.approx((1e-3 + (9 + 1e-6) ** 0.5) / 2)


def test_frequency_l1_is_numpys_transform():
    difference = np.random.default_rng(0).standard_normal((1, 3, 8, 8))
    expected = np.abs(np.fft.rfft2(difference, norm="ortho")).mean()
    actual = frequency_l1(torch.from_numpy(difference), torch.zeros(1, 3, 8, 8))
    assert actual.item() == pytest.approx(expected)


def test_sum_over_stages_and_scales_with_resized_targets():
    target = torch.rand(2, 3, 64, 64)
    scales = [target[..., 2::4, 2::4], target[..., 1::2, 1::2], target]  # nearest with half-pixel centres
    perfect = restoration_loss([scales, scales], target)
    # What is left is epsilon for each of the 2 x 3 terms.
    assert perfect.item() == pytest.approx(6 * 1e-3)
    off = [scales, [scales[0] + 1, *scales[1:]]]
    # A constant 1 on 16 x 16: Charbonnier 1, and one frequency of 16 (orthonormal) among 16 x 9.
    assert restoration_loss(off, target).item() == pytest.approx(5e-3 + 1 + 0.1 * 16 / (16 * 9), rel=1e-4)


def test_colour_term_sees_casts_of_areas_and_neither_brightness_nor_noise():
    target = torch.rand(1, 3, 16, 16)
    assert colour_l1(target + 0.2, target).item() == pytest.approx(0, abs=1e-6)
    cast = torch.tensor([0.3, 0.0, 0.0]).view(1, 3, 1, 1)
    assert colour_l1(target + cast, target).item() == pytest.approx((0.2 + 0.1 + 0.1) / 3)
    checks = torch.ones(16, 16)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    assert colour_l1(target + cast * checks, target).item() == pytest.approx(0, abs=1e-6)
    scales = [target[..., 2::4, 2::4] + cast, target[..., 1::2, 1::2], target]
    weighted = restoration_loss([scales], target, 2.0) - restoration_loss([scales], target)
    # A quarter of 16 x 16 is smaller than an area.
    assert weighted.item() == pytest.approx(2 * 0.4 / 3)
