"""Windows: of large photographs, and with strips instead of padding for some sizes."""

import itertools

import numpy as np
import pytest

from maximir import Restorer
from maximir.models import catalogue, checkpoint, choice
from maximir.network.config import padded_size
from maximir.restoring import estimate, memory, views, windows
from maximir.restoring.links import parse_links
from maximir.restoring.opening import restorer_of
from maximir.restoring.options import Options


@pytest.mark.parametrize("length", [1, 64, 100, 191, 192, 193, 208, 209, 255, 256, 321, 336, 337, 390, 1280])
@pytest.mark.parametrize("multiple", [64, 128])
def test_windows_cover_and_cost_no_more_than_padding(length, multiple):
    found = windows.windows(length, multiple)
    assert found[0][0] == 0 and found[-1][1] == length
    assert sum(padded_size(end - start, multiple) for start, end in found) == padded_size(length, multiple)
    if len(found) > 1:
        assert all((end - start) % multiple == 0 for start, end in found), "nothing is padded"
        assert found[0][1] - found[1][0] > windows.FADE
        assert 0 < length % multiple <= windows.MOST_REST


@pytest.mark.parametrize("length", [1281, 1500, 2048, 3000, 4000, 4016, 12345])
@pytest.mark.parametrize("multiple", [64, 128])
def test_windows_of_long_axes_overlap_and_have_one_size(length, multiple):
    length = length * multiple // 64  # a position of an unshuffled network is 2 x 2 pixels
    found = windows.windows(length, multiple)
    assert found[0][0] == 0 and found[-1][1] == length
    assert {end - start for start, end in found} == {found[0][1]} and found[0][1] % multiple == 0
    assert found[0][1] <= windows.LARGEST * multiple
    assert all(start % 16 == 0 for start, _ in found[:-1]), "a JPEG's blocks stay where they are"
    for (_, end), (start, _) in itertools.pairwise(found):
        assert end - start >= windows.OVERLAP
    assert sum(end - start for start, end in found) < 1.25 * length


def test_which_sizes_have_windows():
    assert windows.several(321, 481) and windows.several(193, 256) and windows.several(200, 200)
    assert windows.several(1281, 64)
    assert not any(
        windows.several(*size) for size in [(320, 512), (300, 500), (65, 70), (1, 129), (339, 600)]
    )


@pytest.mark.parametrize("size", [(193, 256), (256, 208), (325, 200), (321, 481), (1300, 80), (1350, 1290)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_who_changes_nothing_gets_the_same_picture(size, kind):
    image = np.random.default_rng(1).random((*size, 3), np.float32)
    image = image if kind is np.float32 else (image * np.iinfo(kind).max).astype(kind)
    seen = []
    (result,) = windows.restore_in_windows([image], lambda images, report: list(images), seen.append)
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize(("size", "fade"), [((325, 201), windows.FADE), ((1300, 1290), windows.OVERLAP // 2)])
def test_windows_fade_in_and_progress_grows(size, fade):
    image, seen, lights = np.zeros((*size, 3), np.float32), [], []

    def mood(images, report):
        """Each window has its own light: what a border without fading would show."""
        report(0.5), report(1.0)
        lights.append(np.float32(0.1 * (len(lights) + 1)))
        return [piece + lights[-1] for piece in images]

    (result,) = windows.restore_in_windows([image], mood, seen.append)
    assert len(lights) == 4
    for axis in (0, 1):
        assert np.abs(np.diff(result, axis=axis)).max() < 3 * np.ptp(lights) / (fade + 1)
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) == 8


@pytest.fixture
def restorers(gentle_weights, tmp_path):
    model = checkpoint.load_model(gentle_weights)

    def make(task, precision="fp32", **options):
        path = tmp_path / f"of-{task}.safetensors"
        checkpoint.save_model(model, path, metadata={"task": task})
        return Restorer(path, precision=precision, **options)

    return make


@pytest.mark.slow
def test_who_is_restored_that_way(restorers):
    image = np.random.default_rng(0).integers(0, 256, (193, 256, 3), np.uint8)
    rain, exact, haze = restorers("derain"), restorers("derain", view="exact"), restorers("dehaze")
    assert [restorer.way(193, 256) for restorer in (rain, exact, haze)] == ["windows", "whole", "whole"]
    unknown = restorers("")
    assert [restorer.way(1400, 256) for restorer in (rain, exact, haze, unknown)] == [
        "windows", "whole", "views", "whole"
    ]  # fmt: skip
    assert rain.way(193, 256, "exact") == "whole" and exact.way(193, 256, "auto") == "windows"
    assert (rain(image) != exact(image)).any()
    np.testing.assert_array_equal(haze(image), exact(image))
    np.testing.assert_array_equal(rain(image)[:180], exact(image[:192])[:180])
    np.testing.assert_array_equal(rain(image[:192]), exact(image[:192]))


@pytest.mark.slow
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


@pytest.mark.parametrize("task", catalogue.TASKS)
def test_every_model_of_the_box_is_bounded_by_default(task):
    """Also if its file does not say what it is for."""
    way = restorer_of(parse_links(task, choice.for_task), Options(device="cpu")).way(3000, 4000)
    assert way == ("views" if task in views.GLOBAL_TASKS else "windows")
