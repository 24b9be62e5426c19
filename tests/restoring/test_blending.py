import numpy as np
import pytest
import torch
from PIL import Image

from maximir import Chain, MaximirError, Restorer, UsageError, images
from maximir.restoring import blending
from maximir.restoring.blending import BAND, Blend, blend_photo, feathered, mask_rows, prepare_mask
from maximir.restoring.links import in_text

DTYPES = [np.uint8, np.uint16, np.float32]


def pair(dtype=np.uint8, height=40, width=50):
    """Return an original and what a network may make of it."""
    rng = np.random.default_rng(3)
    values = rng.random((2, height, width, 3))
    full = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return (values * full).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_mixes_and_its_ends_are_exact(dtype):
    original, restored = pair(dtype)
    assert np.array_equal(Blend(1.0).apply(original, restored.copy()), restored)
    assert np.array_equal(Blend(0.0, 0.7).apply(original, restored.copy()), original)
    half = Blend(0.5).apply(original, restored.copy())
    assert half.dtype == original.dtype
    mean = (original.astype(float) + restored.astype(float)) / 2
    np.testing.assert_allclose(half, mean, atol=0.51 if np.dtype(dtype).kind == "u" else 1e-6)


@pytest.mark.parametrize("name", ["strength", "detail"])
@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
def test_values_outside_0_to_1_are_refused(name, value, tiny_weights):
    with pytest.raises(UsageError, match=f"{name} must be from 0 to 1"):
        Blend(**{name: value})
    with pytest.raises(UsageError, match=f"{name} must be from 0 to 1"):
        Restorer(tiny_weights, device="cpu", **{name: value})


def test_detail_brings_fine_luma_back_and_no_colours():
    height = width = 64
    fine = np.where(np.indices((height, width)).sum(0) % 2, 0.1, -0.1)[..., None]  # a checkerboard
    smooth = np.linspace(0.3, 0.6, width)[None, :, None] * np.ones((height, 1, 3))
    grey, coloured = smooth + fine, smooth + fine * [1, -0.299 / 0.587, 0]  # the second has no luma
    light = smooth - 0.2 + fine  # what is not fine does not come back
    for original, back in ((grey, smooth + fine), (coloured, smooth), (light, smooth + fine)):
        blended = Blend(detail=1.0).apply(original.astype(np.float32), smooth.astype(np.float32))
        np.testing.assert_allclose(blended[8:-8, 8:-8], back[8:-8, 8:-8], atol=2e-3)


def test_the_callers_settings_of_torch_change_nothing():
    original, restored = pair(np.uint8, 40, 60)
    expected = Blend(1.0, 0.5).apply(original, restored.copy())
    for settings in (torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta")):
        with settings:
            assert np.array_equal(Blend(1.0, 0.5).apply(original, restored.copy()), expected)


def test_bands_do_not_show(monkeypatch):
    original, restored = pair(height=2 * BAND + 30, width=20)
    blend = Blend(0.7, 0.6, np.tile(np.arange(20, dtype=np.uint8) * 10, (2 * BAND + 30, 1)))
    banded = blend.apply(original, restored.copy())
    monkeypatch.setattr(blending, "BAND", 10_000)
    np.testing.assert_allclose(banded.astype(int), blend.apply(original, restored.copy()), atol=1)
    assert (banded != blend.apply(original, restored.copy())).mean() < 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1, 4])
def test_outside_a_mask_the_original_stays_bit_for_bit(dtype, scale):
    original, restored = pair(dtype, 80, 120)
    mask = np.zeros((80 // scale, 120 // scale), bool)
    mask[20 // scale : 60 // scale, 40 // scale : 100 // scale] = True
    blended = Blend(1.0, 0.5, prepare_mask(mask)).apply(original, restored.copy())
    outside = ~mask.repeat(scale, 0).repeat(scale, 1)
    assert np.array_equal(blended[outside], original[outside])
    transparent = Image.new("LA", mask.shape[::-1], 255)
    transparent.putalpha(Image.fromarray(mask).convert("L"))
    for shown in (Image.fromarray(mask), transparent):
        assert np.array_equal(prepare_mask(shown), prepare_mask(mask))
    middle = np.s_[36:44, 64:76]
    assert np.array_equal(
        Blend(1.0, 0.0, prepare_mask(mask)).apply(original, restored.copy())[middle], restored[middle]
    )


def test_a_hard_edge_is_feathered_inwards_and_thin_lines_stay():
    shares = np.zeros((100, 1000), np.uint8)
    shares[10:60, 100:500] = 255
    shares[80:82, :] = 200
    soft = feathered(shares)
    assert not soft[shares == 0].any()
    row = soft[35, 100:110].astype(int)
    assert 0 < row[0] < 130 and (np.diff(row) >= 0).all() and row[-1] == 255
    assert (soft[80:82] == 200).all()
    assert (feathered(np.full((20, 30), 255, np.uint8)) == 255).all()  # the image's border is no edge


def test_a_grey_mask_restores_partly():
    original, restored = pair()
    grey = prepare_mask(np.full(original.shape[:2], 51, np.uint8))
    mixed = original + 0.2 * (restored.astype(float) - original)
    np.testing.assert_allclose(Blend(1.0, 0.0, grey).apply(original, restored.copy()), mixed, atol=0.51)


def test_masks_scale_exactly_or_are_refused(tiny_weights):
    restorer = Restorer(tiny_weights, device="cpu")
    image = pair()[0]
    restorer(image, mask=np.ones((4, 5), bool))
    with pytest.raises(MaximirError, match="mask of 6 x 4 pixels does not scale exactly to the image of 50"):
        restorer(image, mask=np.ones((4, 6), bool))
    assert np.allclose(mask_rows(np.full((4, 5), 255, np.uint8), slice(7, 20), 40, 50), 1)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((4, 5), np.uint8), "all black"),
        (np.zeros((4, 5, 2), np.uint8), r"not \[4, 5, 2\]"),
        (np.zeros((0, 5), np.uint8), "not"),
        (np.ones((4, 5), np.int32), "uint8, uint16 or floating"),
        ("nowhere.png", "nowhere.png: "),
    ],
)
def test_masks_that_cannot_be_used(mask, reason, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=reason):
        Restorer(tiny_weights, device="cpu")(pair()[0], mask=mask)


def test_a_masks_file_is_turned_upright_and_transparency_is_black(tmp_path):
    turned = Image.new("L", (30, 20))
    turned.paste(255, (0, 0, 30, 5))  # its top, which is on the right once it is upright
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    shares = prepare_mask(tmp_path / "turned.png")
    assert shares.shape == (30, 20) and shares[:, -2:].all() and not shares[:, :15].any()
    painted = np.full((20, 30, 4), 255, np.uint8)
    painted[:, :15, 3] = 0
    Image.fromarray(painted).save(tmp_path / "painted.png")
    assert not prepare_mask(tmp_path / "painted.png")[:, :15].any()


def test_strength_0_does_not_compute(tiny_weights, monkeypatch):
    restorer = Restorer(tiny_weights, device="cpu", strength=0)
    monkeypatch.setattr(restorer, "restore_arrays", None)
    for image in (*pair(), pair(np.float32)[0][..., 0]):
        assert np.array_equal(restorer(image), image)


def test_grey_and_hidden_pixels(gentle_weights):
    restorer = Restorer(gentle_weights, device="cpu")
    grey = np.repeat(pair()[0][..., :1], 3, axis=-1)
    for each in (Blend(0.3), Blend(0.8, 0.5)):
        rgb = restorer.restore_photo(images.Photo(grey, grey=True), blend=each).rgb
        assert (rgb == rgb[..., :1]).all()
    rgba = np.dstack([pair()[0], np.full((40, 50), 255, np.uint8)])
    rgba[:, :10, 3] = 0
    blended = restorer(rgba, strength=0.6, detail=0.5)
    assert np.array_equal(blended[:, :10], rgba[:, :10])
    rgba[:, :10, :3] = 7  # colours that nobody sees
    assert np.array_equal(restorer(rgba, strength=0.6, detail=0.5)[:, 10:], blended[:, 10:])


def test_blending_an_earlier_result_is_the_same_as_at_once(gentle_weights):
    restorer = Restorer(gentle_weights, device="cpu")
    alpha = np.full((40, 50), 9, np.uint8)
    alpha[5:9] = 0
    photo = images.Photo(pair()[0], alpha=alpha)
    blend = Blend(0.4, 0.3, prepare_mask(np.eye(40, 50, dtype=bool) | (np.arange(50) > 30)))
    later = blend_photo(photo, restorer.restore_photo(photo), blend)
    assert np.array_equal(later.rgb, restorer.restore_photo(photo, blend=blend).rgb)
    with pytest.raises(MaximirError, match="the restored image is 20 x 20 pixels, the original 50 x 40"):
        blend_photo(photo, images.Photo(np.zeros((20, 20, 3), np.uint8)), blend)


# Chains.


def test_a_chain_is_its_links_one_after_the_other(gentle_weights, tiny_weights, tmp_path):
    chain = Chain(f"{gentle_weights},{tiny_weights}:0.5", device="cpu")
    first, second = (Restorer(weights, device="cpu") for weights in (gentle_weights, tiny_weights))
    image = pair()[0]
    seen = []
    assert np.array_equal(chain(image, progress=seen.append), second(first(image), strength=0.5))
    assert seen == sorted(seen)
    photo = chain.restore_photo(images.Photo(image))
    assert [step["strength"] for step in photo.steps] == [1.0, 0.5]
    between = np.abs(first(image).astype(float) - image).mean() / 255
    assert photo.steps[0]["change"] == pytest.approx(between, abs=1e-4)
    whole = chain(image)
    np.testing.assert_array_equal(chain(image, strength=0.3), Blend(0.3).apply(image, whole))


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ("denoise,unknown", "unknown model 'unknown'"),
        ("denoise,,enhance", "empty link"),
        ("denoise,", "empty link"),
        ("auto", "a chain needs a link"),
        ("", "unknown model ''"),
        ("denoise:1.5", "the strength of denoise must be from 0 to 1"),
        (",".join(["denoise"] * 7), "at most 6 links"),
        (["denoise"] * 7, "at most 6 links"),
        (["auto", "denoise"], "auto cannot be part of a chain"),
    ],
)
def test_chains_that_are_refused(links, reason):
    with pytest.raises(UsageError, match=reason):
        Chain(links, device="cpu")


def test_a_chain_of_names_and_its_text_means_the_same(monkeypatch):
    chain = Chain(["denoise:0.00001", "enhance"], device="cpu")
    text = in_text(chain.links)
    assert repr(chain).startswith(f"<Chain {text}, cpu") and Chain(text, device="cpu").links == chain.links
    assert Chain([text], device="cpu").links == chain.links


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.full((4, 4), 1.5), "floating values are from 0 to 1"),
        (np.full((4, 4), np.nan), "floating values are from 0 to 1"),
        (np.eye(4, dtype=np.uint8), "reach 1 of 255; of ones and zeros"),
    ],
)
def test_masks_of_another_scale_are_refused(mask, reason):
    with pytest.raises(UsageError, match=reason):
        prepare_mask(mask)


def test_a_mask_may_overshoot_a_little():
    """As rounding and cubic interpolation do."""
    mask = np.linspace(-0.1, 1.2, 64, dtype=np.float32).reshape(8, 8)
    assert np.array_equal(prepare_mask(mask), prepare_mask(mask.clip(0, 1)))


def test_progress_of_a_small_image_ends_with_1(tiny_weights):
    parts = []
    restorer = Restorer(tiny_weights, device="cpu")
    restorer(pair()[0], progress=parts.append)
    assert parts[-1] == 1 and repr(restorer).startswith("<Restorer tiny")


def test_an_exception_of_progress_ends_a_small_image_too(tiny_weights):
    def stop(part):
        raise KeyError

    with pytest.raises(KeyError):
        Restorer(tiny_weights, device="cpu")(pair()[0], progress=stop)
