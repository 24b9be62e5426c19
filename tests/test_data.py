import numpy as np
import pytest
import torch
from PIL import Image

from maximir import MaximirError
from maximir.data import DegradedCrops, RunSampler, load_photographs, load_rgb
from maximir.degradations import DEGRADATIONS, blind_gaussian, gaussian_noise, quantise


def unchanged(image, rng):
    return image


def test_samples_depend_on_their_number_only():
    photographs = [np.random.default_rng(i).integers(0, 256, (70 + i, 90, 3), np.uint8) for i in range(3)]
    first = DegradedCrops(photographs, blind_gaussian, seed=1)
    again = DegradedCrops(photographs, blind_gaussian, seed=1)
    other = DegradedCrops(photographs, blind_gaussian, seed=2)
    sample = first[5, 64]
    first[6, 64]
    assert all(torch.equal(a, b) for a, b in zip(sample, again[5, 64], strict=True))
    assert not torch.equal(sample[1], other[5, 64][1])
    assert not torch.equal(sample[1], first[6, 64][1])


def test_a_crop_is_a_turned_piece_of_the_photograph():
    photograph = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3) % 251
    crops = DegradedCrops([photograph.astype(np.uint8)], unchanged, seed=0)
    turned = {np.rot90(f, k).tobytes() for f in (photograph, photograph[:, ::-1]) for k in range(4)}
    seen = set()
    for number in range(60):
        degraded, clean = crops[number, 64]
        assert torch.equal(degraded, clean)
        pixels = clean.mul(255).round().permute(1, 2, 0).numpy().astype(photograph.dtype)
        seen.add(pixels.tobytes())
    assert seen == turned  # all eight, and nothing else


def test_degraded_and_clean_are_the_same_crop():
    photograph = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    crops = DegradedCrops([photograph], lambda image, rng: image / 2, seed=0)
    for number in range(10):
        degraded, clean = crops[number, 64]
        torch.testing.assert_close(2 * degraded, clean)


def test_16_bit_grey_and_turned_photographs(tmp_path):
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    np.testing.assert_array_equal(load_rgb(tmp_path / "ramp.png")[..., 1], np.round(ramp / 257))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_rgb(tmp_path / "turned.jpg").shape == (20, 10, 3)


def test_large_photographs_are_seen_more_often():
    small, large = np.zeros((64, 64, 3), np.uint8), np.full((128, 192, 3), 255, np.uint8)
    crops = DegradedCrops([small, large], unchanged, seed=0)
    share = np.mean([crops[number, 64][1].mean().item() for number in range(300)])
    assert share == pytest.approx(6 / 7, abs=0.06)


def test_batches_go_on_where_a_run_stopped():
    def phase(step):
        return (2, 64) if step < 3 else (1, 128)

    whole = list(RunSampler(0, 5, phase))
    assert whole[2:] == list(RunSampler(2, 5, phase))
    assert [len(batch) for batch in whole] == [2, 2, 2, 1, 1]
    assert len({number for batch in whole for number, _ in batch}) == 8
    assert whole[-1][0][1] == 128


def test_unreadable_and_small_images_are_left_out(tmp_path):
    Image.new("RGB", (100, 80)).save(tmp_path / "good.png")
    Image.new("RGB", (30, 80)).save(tmp_path / "small.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    reports = []
    photographs = load_photographs([tmp_path], [1.0, 0.8, 0.5], 64, reports.append)
    assert [p.shape for p in photographs] == [(80, 100, 3), (64, 80, 3)]
    assert len(reports) == 1
    assert "bad.png" in reports[0]
    with pytest.raises(MaximirError, match="at least 128 pixels"):
        load_photographs([tmp_path], [1.0], 128, reports.append)


def test_gaussian_noise_has_the_stated_strength_and_is_not_clipped():
    rng = np.random.default_rng(0)
    noise = gaussian_noise(np.zeros((200, 200, 3), np.float32), 25, rng)
    assert noise.std() * 255 == pytest.approx(25, rel=0.01)
    assert noise.min() < 0
    assert noise.dtype == np.float32
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02


def test_half_of_the_noise_is_as_in_files():
    clean = np.full((64, 64, 3), 0.5, np.float32)
    rng = np.random.default_rng(0)
    in_files, strengths = [], []
    for _ in range(300):
        noisy = blind_gaussian(clean, rng)
        in_files.append(np.array_equal(noisy, quantise(noisy)))
        strengths.append(noisy.std() * 255)
    assert np.mean(in_files) == pytest.approx(0.5, abs=0.1)
    assert np.max(strengths) == pytest.approx(55, abs=2)
    assert np.mean(strengths) == pytest.approx(27.5, abs=3)
    assert set(DEGRADATIONS) == {"blind-gaussian"}
