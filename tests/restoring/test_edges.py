"""Sizes a little above multiples of 64: a window and strips instead of padding."""

import numpy as np
import pytest

from maximir import Restorer
from maximir.models import checkpoint
from maximir.network.config import padded_size
from maximir.restoring import edges, estimate, memory


@pytest.mark.parametrize("length", [1, 64, 100, 191, 192, 193, 208, 209, 255, 256, 321, 336, 337, 4016])
def test_windows_cover_and_cost_no_more_than_padding(length):
    windows = edges.windows(length)
    assert windows[0][0] == 0 and windows[-1][1] == length
    assert sum(padded_size(end - start) for start, end in windows) == padded_size(length)
    if len(windows) > 1:
        assert all((end - start) % 64 == 0 for start, end in windows), "nothing is padded"
        assert windows[0][1] - windows[1][0] > edges.FADE
        assert 0 < length % 64 <= edges.MOST_REST


def test_which_sizes_have_strips():
    assert edges.has_strips(321, 481) and edges.has_strips(193, 256) and edges.has_strips(200, 200)
    assert not any(
        edges.has_strips(*size) for size in [(320, 512), (300, 500), (65, 70), (1, 129), (339, 600)]
    )


@pytest.mark.parametrize("size", [(193, 256), (256, 208), (325, 200), (321, 481)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_who_changes_nothing_gets_the_same_picture(size, kind):
    image = np.random.default_rng(1).random((*size, 3), np.float32)
    image = image if kind is np.float32 else (image * np.iinfo(kind).max).astype(kind)
    seen = []
    (result,) = edges.restore_with_strips([image], lambda images, report: list(images), seen.append)
    np.testing.assert_array_equal(result, image)


def test_strips_fade_in_and_progress_grows():
    image, seen = np.zeros((325, 201, 3), np.float32), []

    def mood(images, report):
        """Each window has its own light: what a border without fading would show."""
        report(0.5), report(1.0)
        return [piece + np.float32(0.1 * (piece.size % 7)) for piece in images]

    (result,) = edges.restore_with_strips([image], mood, seen.append)
    light = [
        np.float32(0.1 * (r.stop - r.start) * (c.stop - c.start) * 3 % 0.7) for r, c in edges.parts(325, 201)
    ]
    assert len(light) == 4 and len(set(light)) > 1
    largest = np.ptp(light)
    for axis in (0, 1):
        assert np.abs(np.diff(result, axis=axis)).max() < 2.5 * largest / (edges.FADE + 1)
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) == 8


@pytest.fixture
def restorers(gentle_weights, tmp_path):
    model = checkpoint.load_model(gentle_weights)

    def make(task, precision="fp32", **options):
        path = tmp_path / f"{task}.safetensors"
        checkpoint.save_model(model, path, metadata={"task": task})
        return Restorer(path, precision=precision, **options)

    return make


def test_who_is_restored_that_way(restorers):
    image = np.random.default_rng(0).integers(0, 256, (193, 256, 3), np.uint8)
    rain, exact, haze = restorers("derain"), restorers("derain", view="exact"), restorers("dehaze")
    assert [restorer.way(193, 256) for restorer in (rain, exact, haze)] == ["strips", "whole", "whole"]
    assert rain.way(193, 256, "exact") == "whole" and exact.way(193, 256, "auto") == "strips"
    assert (rain(image) != exact(image)).any()
    np.testing.assert_array_equal(haze(image), exact(image))
    np.testing.assert_array_equal(rain(image)[:180], exact(image[:192])[:180])
    np.testing.assert_array_equal(rain(image[:192]), exact(image[:192]))


def test_batches_grey_alpha_ensemble_and_progress(restorers):
    seen = []
    restorer, several = restorers("denoise"), restorers("denoise", ensemble=True)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (200, 193, 3), np.uint8) for _ in range(2)]
    together = restorer.restore_arrays(images, progress=seen.append)
    for image, result in zip(images, together, strict=True):
        # Some processors sum a batch in another order than one image.
        np.testing.assert_allclose(restorer(image).astype(int), result, rtol=0, atol=1)
    assert seen == sorted(seen)
    rgba = np.dstack([images[0], images[1][..., 0]])
    np.testing.assert_array_equal(restorer(rgba)[..., 3], rgba[..., 3])
    assert several(images[0][..., 0]).shape == (200, 193)


def test_estimates_of_strips(restorers, monkeypatch):
    monkeypatch.setattr(memory, "resident", lambda: 300 << 20)  # what else there is changes from call to call
    monkeypatch.setattr(estimate, "SAMPLES", (64, 128))
    near, padded = (estimate.estimate(restorers("derain"), *size) for size in [(1025, 1024), (1042, 1024)])
    assert near.peak < padded.peak, "the strip is done after the window"
