import shutil

import numpy as np
import pytest
from PIL import Image

from maximir import cli
from maximir.degradations import DEGRADATIONS
from maximir.training.data import find_pairs, find_scenes
from maximir.training.sheet import GAP, contact_sheet


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 100, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    Image.new("L", (100, 80), 99).save(folder / "0_depth.png")
    return folder


def degrade(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["maximir", "degrade", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code or 0


def test_a_contact_sheet_shows_clean_then_degraded(clean):
    sheet = contact_sheet(find_scenes([clean]), ["gaussian-25", "depth-haze"], 2, 64, seed=0)
    assert sheet.shape == (3 * (64 + GAP), 3 * (64 + GAP), 3)
    pixels = np.asarray(Image.open(clean / "0.png"))
    assert np.array_equal(sheet[:64, :64], pixels[8:72, 18:82])
    noisy, hazy = sheet[:64, 68:132].astype(float), sheet[:64, 136:200].astype(float)
    assert np.std(noisy - sheet[:64, :64]) > 15
    assert hazy.std() < sheet[:64, :64].std()
    assert np.array_equal(
        sheet, contact_sheet(find_scenes([clean]), ["gaussian-25", "depth-haze"], 2, 64, seed=0)
    )


def test_the_command_writes_a_sheet(clean, tmp_path, monkeypatch, capsys):
    assert degrade(monkeypatch, clean, "-o", tmp_path / "sheet.png", "--side", "64", "--rows", "2") == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == ((1 + len(DEGRADATIONS)) * (64 + GAP), 2 * (64 + GAP))
    assert ", ".join(DEGRADATIONS) in capsys.readouterr().out
    again = (clean, "-o", tmp_path / "sheet.png", "--side", "64", "--count", "2")
    assert degrade(monkeypatch, *again) == 2
    assert "sheet.png exists; use --overwrite" in capsys.readouterr().err
    assert degrade(monkeypatch, *again, "--overwrite") == 0
    assert "2 times degraded: gaussian, gaussian-25\n" in capsys.readouterr().out


def test_the_command_writes_over_nothing(clean, tmp_path, monkeypatch, capsys):
    for output, sentence in (
        (clean / "pairs", "whose images are read"),
        (tmp_path / "sheet.tif", "a contact sheet is .png"),
        (clean.parent, "is not empty; use --overwrite"),
    ):
        assert degrade(monkeypatch, clean, "-o", output, "--with", "rain") == 2
        assert sentence in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert degrade(monkeypatch, clean, "-o", tmp_path / "file" / "pairs", "--with", "rain") == 1
    assert "cannot be written (not a directory)" in capsys.readouterr().err


def test_a_damaged_photograph_does_not_stop_the_others(clean, tmp_path, monkeypatch, capsys):
    whole = (clean / "1.png").read_bytes()
    (clean / "1.png").write_bytes(whole[: len(whole) // 2])
    assert degrade(monkeypatch, clean, "-o", tmp_path / "pairs", "--with", "rain") == 1
    told = capsys.readouterr()
    assert "2 pairs" in told.out and "1.png" in told.err


def test_the_command_writes_pairs_that_train_can_read(clean, tmp_path, monkeypatch):
    out = tmp_path / "pairs"
    assert (
        degrade(monkeypatch, clean, "-o", out, "--with", "rain", "--with", "depth-haze", "--seed", "3") == 0
    )
    scenes = find_pairs([out])
    assert [scene.name for scene in scenes] == ["0_depth-haze", "0_rain", "1_rain", "2_rain"]
    for scene in scenes:
        original = np.asarray(Image.open(clean / f"{scene.name[0]}.png"))
        assert np.array_equal(scene.target.load(), original)
        assert not np.array_equal(scene.inputs[0].load(), original)


def test_no_pair_replaces_another_and_none_is_an_error(clean, tmp_path, monkeypatch, capsys):
    shutil.copytree(clean, tmp_path / "more" / "clean")
    out = tmp_path / "pairs"
    assert degrade(monkeypatch, clean, tmp_path / "more" / "clean", "-o", out, "--with", "rain") == 1
    assert "another photograph has the same name" in capsys.readouterr().err and not out.exists()
    assert degrade(monkeypatch, clean, clean, "-o", out, "--with", "rain") == 0
    for name in ("x.png", ".DS_Store", "._x.png"):
        (out / "input" / name).touch()
    assert degrade(monkeypatch, clean, "-o", out, "--with", "rain", "--overwrite") == 1
    assert "holds 1 more pair, from before" in capsys.readouterr().err
    (clean / "0_depth.png").unlink()
    assert degrade(monkeypatch, clean, "-o", tmp_path / "none", "--with", "depth-haze") == 1
    assert "depth map" in capsys.readouterr().err


def test_a_depth_map_of_another_size_is_fitted(clean, tmp_path, monkeypatch):
    Image.new("L", (30, 20), 99).save(clean / "0_depth.png")
    assert degrade(monkeypatch, clean, "-o", tmp_path / "pairs", "--with", "depth-haze") == 0
    assert degrade(monkeypatch, clean, "-o", tmp_path / "sheet.png", "--with", "depth-haze") == 0


def test_unknown_degradation_and_missing_folder(clean, tmp_path, monkeypatch, capsys):
    assert degrade(monkeypatch, clean, "-o", tmp_path / "x.png", "--with", "fog") == 2
    assert "unknown degradation 'fog'" in capsys.readouterr().err
    assert degrade(monkeypatch, tmp_path / "nowhere", "-o", tmp_path / "x.png") == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
    assert degrade(monkeypatch, clean / "0.png", "-o", tmp_path / "x.png") == 2
    assert "is a file; give its folder" in capsys.readouterr().err
