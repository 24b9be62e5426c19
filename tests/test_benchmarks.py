"""The sets and figures of benchmarks/restoration.py, on small images."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import restoration
from maximir.recipe import load_recipe

SHAPE = (48, 40)


def photograph(seed):
    """Smooth, and not near black or white, where noise would be clipped."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    waves = [127 + 60 * np.sin(x / (5 + seed) + y / (9 + channel) + seed) for channel in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for folder in (
        "validation/mcmaster",
        "validation/set14",
        "pairs/rain",
        "pairs/haze-indoor",
        "blur-kernels",
    ):
        (root / folder).mkdir(parents=True)
    for number in range(2):
        Image.fromarray(photograph(number)).save(root / f"validation/mcmaster/{number}.png")
        Image.fromarray(photograph(number + 2)).save(root / f"validation/set14/{number}.png")
        kernel = np.zeros((9, 7), np.uint8)
        kernel[number + 1 : 7, 2] = 200
        kernel[3, 2:6] = 90
        Image.fromarray(kernel).save(root / f"blur-kernels/kernel{number + 1}.png")
    for scene in ("1", "2", "17"):  # the recipe holds out 2, 7 and 10
        Image.fromarray(photograph(int(scene))).save(root / f"pairs/rain/{scene}_target.png")
        Image.fromarray(photograph(int(scene)) // 2).save(root / f"pairs/rain/{scene}_input.png")
    for scene in (1420, 1421):  # of these, the second
        for part, value in {"target": 0, "light_input": 30, "strong_input": 60}.items():
            Image.fromarray(photograph(scene) + np.uint8(value)).save(
                root / f"pairs/haze-indoor/{scene}_{part}.png"
            )
    return root


def identity(image):
    return image


def sets(task, data):
    return {each.name: each for each in restoration.sets_of(task, data, load_recipe(f"{task}-small"))}


@pytest.mark.parametrize("task", ["deblur", "derain", "dehaze"])
def test_what_restores_nothing_has_the_figures_of_the_input(task, data):
    for each in restoration.sets_of(task, data, load_recipe(f"{task}-small")):
        pairs = [(restoration.quantise(degraded), clean) for degraded, clean in each.pairs]
        assert pairs, each.name
        for before_psnr, before_ssim, *after in restoration.evaluate(identity, each.name, pairs):
            assert after == pytest.approx([before_psnr, before_ssim], abs=1e-4)
            assert before_psnr < 45 and before_ssim < 1


def test_perfect_restoration():
    clean = photograph(0)
    noisy = restoration.to_unit(clean // 2)
    *_, psnr, ssim = restoration.score(noisy, clean, clean)
    assert psnr == float("inf") and ssim == pytest.approx(1)


def test_only_scenes_that_are_held_out(data):
    ((degraded, clean),) = sets("derain", data)["RainTrainL, held out"].pairs
    np.testing.assert_array_equal(clean, photograph(2))
    np.testing.assert_allclose(degraded * 255, photograph(2) // 2, atol=1e-3)
    dehaze = sets("dehaze", data)
    for haze, value in {"light": 30, "strong": 60}.items():
        each = dehaze[f"SOTS indoor, held out, {haze}"]
        ((degraded, clean),) = each.pairs
        np.testing.assert_array_equal(clean, photograph(1421))
        np.testing.assert_allclose(degraded * 255, clean + np.uint8(value), atol=1e-3)
        assert each.part_of == "SOTS indoor, held out"


def test_blur_keeps_brightness_and_adds_one_percent_of_noise(data):
    for kernel in (data / "blur-kernels").iterdir():
        assert restoration.load_kernel(kernel).sum() == pytest.approx(1, abs=1e-5)
    blur = sets("deblur", data)
    assert {f"McMaster, kernel{k}" for k in (1, 2)} < set(blur)
    first, again, other = (
        list(restoration.blurred(data / "validation/mcmaster", data / f"blur-kernels/kernel{k}.png", seed))
        for k, seed in ((1, 0), (1, 0), (1, 1))
    )
    for (image, clean), (same, _), (differently, _) in zip(first, again, other, strict=True):
        assert image.shape == clean.shape
        np.testing.assert_array_equal(image, same)
        assert image.mean() * 255 == pytest.approx(clean.mean(), abs=1.5)
        assert ((image - differently) * 255).std() == pytest.approx(2.55 * 2**0.5, rel=0.1)
        np.testing.assert_allclose(image * 255, np.round(image * 255), atol=1e-3)


def test_blur_is_a_convolution_with_mirrored_borders(tmp_path):
    """A kernel of one pixel, off the centre, moves the picture by as much, and not the other way."""
    clean = photograph(0)
    (tmp_path / "clean").mkdir()
    Image.fromarray(clean).save(tmp_path / "clean" / "0.png")
    kernel = np.zeros((5, 5), np.uint8)
    kernel[3, 0] = 255  # one down, two to the left
    Image.fromarray(kernel).save(tmp_path / "kernel.png")
    ((moved, _),) = restoration.blurred(tmp_path / "clean", tmp_path / "kernel.png", 0)
    wide = np.pad(clean, [(2, 2), (2, 2), (0, 0)], mode="reflect").astype(float)
    expected = wide[1 : 1 + SHAPE[0], 4 : 4 + SHAPE[1]]
    assert (moved * 255 - expected).std() == pytest.approx(2.55, rel=0.1)


def test_gaussian_noise_of_tables_and_of_files(data):
    tables, files = (
        np.stack([image for image, _ in restoration.gaussian(data / "validation/set14", 50, as_file=as_file)])
        for as_file in (False, True)
    )
    assert tables.min() < 0 or tables.max() > 1
    np.testing.assert_array_equal(restoration.quantise(tables), files)


def test_command_prints_a_table_and_saves_strips(data, tiny_weights, tmp_path, monkeypatch, capsys):
    command = f"restoration.py dehaze {data} --weights {tiny_weights} --images 1 --save {tmp_path}"
    monkeypatch.setattr(sys, "argv", command.split())
    restoration.main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    names = [line.split("|")[1].strip() for line in table]
    whole = "SOTS indoor, held out"
    assert names == ["set", "---", whole, f"{whole}, light", f"{whole}, strong", "McMaster, haze, synthetic"]
    assert [line.split("|")[2].strip() for line in table[2:]] == ["2", "1", "1", "1"]
    with Image.open(tmp_path / "sots-indoor-held-out-light-1.png") as strip:
        assert strip.size == (3 * SHAPE[1], SHAPE[0])


def test_a_set_that_is_not_there_is_named(data, tiny_weights, monkeypatch, capsys):
    """No pairs of real noise here; and the recipe holds none out."""
    command = f"restoration.py denoise {data} --weights {tiny_weights} --sigmas 25 --images 1"
    monkeypatch.setattr(sys, "argv", command.split())
    restoration.main()
    out, err = capsys.readouterr()
    assert "PolyU, held out: left out" in err
    assert "PolyU" not in out and "| McMaster, Gaussian 25 | 1 | " in out
