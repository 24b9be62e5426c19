"""Presets become options in one place; the user's own extend those that come along."""

import numpy as np
import pytest
from PIL import Image

import maximir
from helpers.command import maximir as command
from maximir import Restorer, UsageError
from maximir.models import choice
from maximir.models.cards import ModelCard
from maximir.restoring import presets
from maximir.restoring.presets import Preset


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder; `write` makes the file of presets."""
    monkeypatch.setenv("MAXIMIR_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def small(monkeypatch, gentle_weights):
    """Every task has small weights."""
    monkeypatch.setattr(
        choice, "for_task", lambda task: ModelCard(f"{task}-box", task, "box", gentle_weights)
    )


def write(home, text):
    (home / "presets.toml").write_text(text, "utf-8")


def test_those_that_come_along(home):
    assert list(presets.known()) == ["scans", "night", "haze", "chat"]
    assert presets.find("night") == Preset("night", "Phone at night", "denoise,enhance", None, 0.9, 0.2)


def test_the_users_extend_and_replace(home):
    write(home, '[night]\ntask = "enhance"\n[mine]\nmodel = "denoise-sidd"\nstrength = 0.5\n')
    assert presets.find("night") == Preset("night", "night", "enhance")
    assert presets.find("mine") == Preset("mine", "mine", None, "denoise-sidd", 0.5)
    assert "scans" in presets.known()


def test_what_is_given_beside_a_preset_replaces_what_it_says():
    night = presets.find("night")
    assert night.override() == night
    assert night.override(strength=0.0) == Preset("night", night.title, night.task, None, 0.0, 0.2)
    assert night.override(model="denoise-box") == Preset("night", night.title, None, "denoise-box", 0.9, 0.2)
    mine = Preset("mine", "mine", None, "denoise-sidd")
    assert mine.override("derain", detail=1) == Preset("mine", "mine", "derain", None, 1.0, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[mine\n", "presets.toml: not valid TOML: .*line 1"),
        (
            '[mine]\ntask = "sharpen"',
            "presets.toml, preset mine: unknown task 'sharpen': choose one of denoise, ",
        ),
        ('[mine]\ntask = "denoise,"', "preset mine: the chain .* has an empty link"),
        ('[mine]\ntask = "denoise:2"', "preset mine: the strength of denoise must be from 0 to 1"),
        (
            '[mine]\ntask = "auto"\nstrenght = 1',
            "preset mine: unknown key 'strenght': choose from title, task,",
        ),
        ('[mine]\ntask = "auto"\nstrength = "1"', "preset mine: strength must be a number, not '1'"),
        ('[mine]\ntask = "auto"\nstrength = true', "preset mine: strength must be a number, not True"),
        ('[mine]\ntask = "auto"\ndetail = nan', "preset mine: detail must be from 0 to 1, not nan"),
        ("[mine]\ntask = 1", "preset mine: task must be a text, not 1"),
        ("[mine]\nstrength = 1", "preset mine: give either a task or a model"),
        ('[mine]\ntask = "auto"\nmodel = "x"', "preset mine: give either a task or a model"),
        ('[mine]\nmodel = ""', "preset mine: the model has no name"),
        ('mine = "auto"', r"preset mine: write its keys below a line \[mine\]"),
        ('["my own"]\ntask = "auto"', "preset my own: a name has up to 40 letters"),
    ],
)
def test_mistakes_in_the_users_file_are_named_with_their_place(text, words, home):
    write(home, text)
    with pytest.raises(UsageError, match=words):
        presets.known()


def test_a_byte_order_mark_is_no_mistake(home):
    write(home, '\ufeff[mine]\ntask = "derain"\n')
    assert presets.find("mine").task == "derain"


def test_a_file_that_is_no_text(home):
    (home / "presets.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"presets\.toml: not valid TOML"):
        presets.find("night")


def test_the_command(home, small, tmp_path, capsys):
    write(home, '[mine]\ntask = "derain"\nstrength = 0.25\n')
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    command("restore", tmp_path / "a.png", "-o", tmp_path / "no", "--preset", "day", expect=2)
    assert "unknown preset 'day': choose one of scans, night, haze, chat, mine, or" in capsys.readouterr().err
    for options in ([], ["--strength", "0.75"], ["--task", "denoise"]):
        out = tmp_path / "out" / str(len(list(tmp_path.glob("out/*"))))
        fixed = ["--precision", "fp32", *options]
        command("restore", tmp_path / "a.png", "-o", out, "--preset", "mine", *fixed)
    assert [
        line.rpartition("(")[2] for line in capsys.readouterr().out.splitlines() if "restored," in line
    ] == [
        "model: derain-box, fp32)",
        "model: derain-box, fp32)",
        "model: denoise-box, fp32)",
    ]
    with Image.open(tmp_path / "out" / "0" / "a.png") as written:
        expected = Restorer(choice.for_task("derain").path, precision="fp32", strength=0.25)(image)
        assert np.array_equal(written, expected)
    with Image.open(tmp_path / "out" / "1" / "a.png") as written:
        assert not np.array_equal(written, expected)


def test_watching_takes_presets(home, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    command("watch", tmp_path / "in", "-o", tmp_path / "out", "--preset", "day", expect=2)
    assert "unknown preset 'day'" in capsys.readouterr().err


def test_in_python(home, small):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    night = maximir.open_preset("night", precision="fp32", detail=0.0)
    assert night.options.strength == 0.9 and night.options.detail == 0.0
    expected = maximir.Chain("denoise,enhance", precision="fp32", strength=0.9)(image)
    assert np.array_equal(night(image), expected)
    with pytest.raises(UsageError, match="unknown preset 'day'"):
        maximir.open_preset("day")
