from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from conftest import TINY
from maximir import MaximirError, Restorer, UsageError
from maximir.engine import network as engine
from maximir.images import Photo
from maximir.pixels import from_unit, to_unit
from maximir.restoring.padding import pad, padded_size, reflected


class Echo(torch.nn.Module):
    """Stands for a network: returns its input, and remembers it."""

    config = TINY

    def forward(self, image):
        self.seen = image
        return [[image]]


@pytest.fixture
def echo(tiny_weights):
    restorer = Restorer(tiny_weights, device="cpu")
    restorer.model = Echo()
    return restorer


@pytest.fixture(scope="module")
def restorer(tiny_weights):
    return Restorer(tiny_weights, device="cpu")


def official_padding(image):
    """The official run_eval.py's steps, on [H, W]: even size at the end, then centred to multiples of 64."""
    h, w = image.shape
    image = np.pad(image, [(0, h % 2), (0, w % 2)], mode="reflect")
    h, w = image.shape
    rows = (h // 64 + 1) * 64 - h if h % 64 else 0
    columns = (w // 64 + 1) * 64 - w if w % 64 else 0
    return np.pad(image, [(rows // 2, rows // 2), (columns // 2, columns // 2)], mode="reflect")


@pytest.mark.parametrize("h", [1, 2, 3, 63, 64, 65, 127, 128, 129, 200])
@pytest.mark.parametrize("w", [1, 5, 64, 97])
def test_padding_is_the_official_evaluations(h, w):
    image = np.random.default_rng(0).random((h, w))
    padded, window = pad(torch.from_numpy(image))
    np.testing.assert_array_equal(padded.numpy(), official_padding(image))
    np.testing.assert_array_equal(window.crop(padded).numpy(), image)
    assert padded.shape[0] % 64 == 0
    assert padded.shape[1] % 64 == 0


@pytest.mark.parametrize("multiple", [64, 128])
def test_every_size_up_to_two_windows_pads_to_a_multiple(multiple):
    for size in range(1, 130):
        indices, before = reflected(size, multiple)
        assert len(indices) == padded_size(size + size % 2, multiple)
        assert before == 0 or multiple == 64, "a JPEG's blocks stay where they are"
        np.testing.assert_array_equal(indices[before : before + size], np.arange(size))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unit_round_trip_is_exact(dtype):
    everything = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    np.testing.assert_array_equal(from_unit(to_unit(everything), np.dtype(dtype)), everything)


def test_integers_are_rounded_and_clipped_not_truncated():
    values = np.array([-1, 0.49 / 255, 0.51 / 255, 254.6 / 255, 2], np.float32)
    np.testing.assert_array_equal(from_unit(values, np.dtype(np.uint8)), [0, 0, 1, 255, 255])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (70, 33, 3), (70, 33), (20, 30, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_arrays_keep_kind_and_an_identity_is_exact(echo, shape, dtype):
    rng = np.random.default_rng(0)
    image = rng.random(shape).astype(dtype) if dtype in (np.float32, np.float64) else None
    if image is None:
        image = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    restored = echo(image)
    assert restored.dtype == dtype
    np.testing.assert_allclose(restored, image, rtol=1e-6 if restored.dtype.kind == "f" else 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "YCbCr"])
def test_pil_images_keep_size_and_kind(echo, mode):
    grey = mode in ("1", "L", "LA", "I;16")
    if mode == "I;16":
        image = Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800)
    else:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)).convert(mode)
    restored = echo(image)
    assert restored.size == image.size
    expected = {"1": "L", "P": "RGB", "YCbCr": "RGB"}.get(mode, mode)
    assert restored.mode == expected
    np.testing.assert_array_equal(np.asarray(restored), np.asarray(image.convert(expected)))
    if grey:
        assert torch.equal(echo.model.seen[:, 0], echo.model.seen[:, 2])


def test_pil_alpha_and_metadata_stay(restorer):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 8, 4), np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    restored = restorer(image)
    assert restored.info == {"icc_profile": profile}
    assert restorer(image.convert("LA")).info == {}  # which that profile is not for
    np.testing.assert_array_equal(np.asarray(restored)[..., 3], np.asarray(image)[..., 3])
    assert not np.array_equal(np.asarray(restored)[..., :3], np.asarray(image)[..., :3])


def test_premultiplied_and_big_endian_images(echo):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8))
    assert echo(image.convert("RGBa")).mode == "RGBA"
    assert echo(image.convert("LA").convert("La")).mode == "LA"
    wide = np.arange(60, dtype=">u2").reshape(4, 5, 3)
    np.testing.assert_array_equal(echo(wide), wide)
    assert echo(wide).dtype == wide.dtype


def test_palette_with_transparency(echo):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)).convert("P")
    image.info["transparency"] = 3
    restored = echo(image)
    assert restored.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(restored), np.asarray(image.convert("RGBA")))
    assert "transparency" not in restored.info


def test_grey_stays_grey(restorer):
    grey = np.random.default_rng(0).integers(0, 256, (20, 30, 1), np.uint8).repeat(3, axis=2)
    for is_grey in (True, False):  # a grey file, and a grey picture in a colour file
        restored = restorer.restore_photo(Photo(grey, grey=is_grey))
        assert restored.grey == is_grey
        assert (restored.rgb == restored.rgb[..., :1]).all()


def test_the_restored_image_is_the_last_output(restorer):
    image = np.random.default_rng(0).random((64, 128, 3), np.float32)
    with torch.inference_mode():
        outputs = restorer.model(torch.from_numpy(image).permute(2, 0, 1)[None])
    expected = outputs[-1][-1][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(restorer(image), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert np.abs(expected).max() > 1  # floats are not clipped


def test_bfloat16_is_near(tiny_weights, restorer):
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    exact, rough = restorer(image), Restorer(tiny_weights, precision="bf16")(image)
    assert 0 < np.sqrt(np.mean((exact - rough) ** 2)) < 0.1 * exact.std()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 5, 2), np.uint8), r"\[5, 5, 2\]"),
        (np.zeros((1, 5, 5, 3), np.uint8), r"arrays are"),
        (np.zeros((5, 5, 3), np.int32), "int32"),
        (np.full((5, 5, 3), 200.0), "in \\[0, 1\\], but this one reaches 200"),
        (np.full((5, 5, 3), np.nan), "not finite"),
        ("photo.png", "not str"),
        (Image.new("F", (4, 4)), "mode F"),
    ],
)
def test_wrong_images(restorer, image, reason):
    with pytest.raises(MaximirError, match=reason):
        restorer(image)


def test_wrong_settings(tiny_weights):
    with pytest.raises(UsageError, match="precision"):
        Restorer(tiny_weights, precision="fp8")
    with pytest.raises(UsageError, match="device 'gpu'"):
        Restorer(tiny_weights, device="gpu")
    with pytest.raises(UsageError, match="not an amount of memory"):
        Restorer(tiny_weights, max_memory="much")
    with pytest.raises(MaximirError, match="no scratch files can be made there"):
        Restorer(tiny_weights, scratch="/missing")


def test_out_of_memory_is_a_sentence(echo, monkeypatch):
    def allocate(image):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(echo.model, "forward", allocate)
    with pytest.raises(MaximirError, match="30 x 20 pixels need more memory than there is"):
        echo(np.zeros((20, 30, 3), np.uint8))


class Uneven(torch.nn.Module):
    """Stands for a network that treats directions differently: adds a ramp down, and twice a ramp across."""

    config = TINY

    def forward(self, image):
        _, _, h, w = image.shape
        down = torch.linspace(0, 0.1, h)[:, None]
        across = torch.linspace(0, 0.2, w)
        return [[image + down + across]]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 128, 3), (128, 64, 3), (64, 64, 3), (70, 33, 3)])
def test_ensemble_is_the_mean_over_all_eight_poses(tiny_weights, shape):
    """Whatever the network does to directions, the mean has none left; also where sides differ."""
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    restorer = Restorer(tiny_weights, device="cpu", ensemble=True)
    alone, by_hand = Restorer(tiny_weights, device="cpu"), np.zeros(shape)
    for k in range(4):
        by_hand += np.rot90(alone(np.rot90(image, k)), -k) / 8
        by_hand += np.rot90(alone(np.rot90(image[::-1], k)), -k)[::-1] / 8
    np.testing.assert_allclose(restorer(image), by_hand, atol=1e-6)
    restorer.model = Uneven()
    if shape[0] % 64 == shape[1] % 64 == 0:
        np.testing.assert_allclose(restorer(image), image + 0.15, atol=1e-6)
    restorer.model = Echo()
    np.testing.assert_allclose(restorer(image), image, atol=1e-6)
    eight_bit = (image * 255).astype(np.uint8)
    np.testing.assert_array_equal(restorer(eight_bit), eight_bit)
    grey = Image.fromarray(eight_bit[..., 0])
    assert restorer(grey).mode == "L"


def test_progress_of_an_ensemble_never_goes_back(tiny_weights, monkeypatch):
    parts = []
    monkeypatch.setattr("maximir.restoring.memory.is_small", lambda *args: False)
    restorer = Restorer(tiny_weights, device="cpu", ensemble=True)
    restorer(np.zeros((64, 128, 3), np.uint8), progress=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == pytest.approx(1)
    assert 0 < parts[0] < 1 / 8


def test_threads_leave_the_default_dtype_of_the_program_alone(gentle_weights, monkeypatch):
    restorer = Restorer(gentle_weights, "cpu", "fp32")
    images = [np.random.default_rng(0).integers(0, 256, (64 + i, 96, 3), np.uint8) for i in range(8)]
    expected, seen = [restorer(image) for image in images], []
    run = engine.run

    def watched(*arguments):
        seen.append(torch.get_default_dtype())
        return run(*arguments)

    monkeypatch.setattr(engine, "run", watched)
    torch.set_default_dtype(torch.float64)
    try:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(restorer, images))
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen == [torch.float64] * len(images)
    for result, one in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, one)


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
        (lambda: torch.set_default_dtype(torch.bfloat16), lambda: torch.set_default_dtype(torch.float32)),
        (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
        (lambda: torch.set_autocast_enabled("cpu", True), lambda: torch.set_autocast_enabled("cpu", False)),
        (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    ],
    ids=["float64", "bfloat16", "device", "autocast", "gradients"],
)
def test_what_the_caller_set_in_torch_does_not_matter(change, undo, gentle_weights):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    expected = Restorer(gentle_weights, device="cpu")(image)
    change()
    try:
        result = Restorer(gentle_weights, device="cpu")(image)
        kept = torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
    finally:
        undo()
    np.testing.assert_array_equal(result, expected)
    assert kept[0] in (torch.float32, torch.float64, torch.bfloat16)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_a_grey_picture_stays_grey_in_three_channels(tiny_weights):
    grey = np.random.default_rng(0).integers(0, 256, (70, 90, 1), np.uint8)
    restorer = Restorer(tiny_weights)
    for image in (np.repeat(grey, 3, axis=2), Image.fromarray(np.repeat(grey, 3, axis=2))):
        result = np.asarray(restorer(image))
        assert (result[..., :1] == result).all()
    rgba = np.concatenate([np.repeat(grey, 3, axis=2), grey], axis=2)
    assert (restorer(rgba)[..., 0] == restorer(rgba)[..., 1]).all()


@pytest.mark.parametrize("key", [0, 500, 65535])
def test_sixteen_bits_with_a_transparent_grey(key, gentle_weights):
    grey = np.random.default_rng(0).integers(1000, 60000, (70, 90)).astype(np.uint16)
    grey[10:20] = key
    image = Image.fromarray(grey)
    image.info["transparency"] = key
    result = Restorer(gentle_weights)(image)
    assert result.mode == image.mode and result.info["transparency"] == key
    np.testing.assert_array_equal(np.asarray(result) == key, grey == key)


def test_a_device_of_torch(tiny_weights):
    assert Restorer(tiny_weights, device=torch.device("cpu")).device == torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "mps", "xpu", "nonsense"])
def test_other_devices_get_a_sentence(name, tiny_weights):
    with pytest.raises(UsageError, match="cannot be used") as caught:
        Restorer(tiny_weights, device=name)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
