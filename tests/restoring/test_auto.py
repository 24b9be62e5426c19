"""AutoRestorer proposes tasks, chains them, and leaves alone what needs nothing."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from maximir import AutoRestorer, Restorer, UsageError, restore_files
from maximir.cli.app import app
from maximir.degradations import degrade_photograph
from maximir.models import choice
from maximir.models.cards import ModelCard
from maximir.pixels import UINT8, from_unit
from maximir.restoring import auto, diagnosis
from maximir.restoring.diagnosis import CROP, DAMAGES, TASKS, Finding, diagnose, views_of
from maximir.restoring.links import parse_links
from maximir.restoring.opening import open_restorer

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*.png"))


def waves(height=200, width=240):
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([0.5 + 0.4 * np.sin(x / a + y / b) for a, b in ((9, 17), (21, 11), (13, 29))], axis=-1)
    return from_unit(rgb.astype(np.float32), UINT8)


@pytest.fixture
def finds(monkeypatch, gentle_weights):
    """Return a function that sets what is found; every task has small weights."""
    monkeypatch.setattr(
        choice, "for_task", lambda task: ModelCard(f"{task}-box", task, "box", gentle_weights)
    )

    def found(*damages):
        monkeypatch.setattr(diagnosis, "diagnose", lambda image: [Finding(*each) for each in damages])

    return found


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_what_needs_nothing_is_the_same_file(name, finds, tmp_path):
    finds()
    Image.fromarray(waves()).save(tmp_path / name)
    [note] = AutoRestorer().restore_file(tmp_path / name, tmp_path / f"out-{name}")
    assert note == auto.NOTHING
    assert (tmp_path / f"out-{name}").read_bytes() == (tmp_path / name).read_bytes()
    np.testing.assert_array_equal(AutoRestorer()(waves()), waves())


def test_strength_0_is_the_same_file_too(gentle_weights, tmp_path):
    Image.fromarray(waves()).save(tmp_path / "a.jpg", quality=50)
    Restorer(gentle_weights).restore_file(tmp_path / "a.jpg", tmp_path / "b.jpg", strength=0)
    assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()
    Restorer(gentle_weights).restore_file(tmp_path / "a.jpg", tmp_path / "b.png", strength=0)
    np.testing.assert_array_equal(Image.open(tmp_path / "b.png"), Image.open(tmp_path / "a.jpg"))


def test_a_chain_in_a_sound_order_of_the_two_surest(finds, tmp_path):
    finds(("darkness", 0.7), ("noise", 0.8), ("blur", 0.5))
    (tmp_path / "in").mkdir()
    Image.fromarray(waves()).save(tmp_path / "in" / "a.png")
    [outcome] = restore_files(tmp_path / "in", tmp_path / "out", "auto")
    assert outcome.error is None
    assert outcome.notes[0] == "noise and low light: denoise 0.8, then enhance 0.7"
    assert [(step["model"], step["strength"]) for step in outcome.steps] == [
        ("denoise-box", 0.8),
        ("enhance-box", 0.7),
    ]
    assert not np.array_equal(Image.open(tmp_path / "out" / "a.png"), waves())


def test_a_damage_is_mended_at_least_by_half_once_it_is_sure(monkeypatch):
    for probability, strength in ((0.5, None), (0.9001, 0.5), (0.96, 0.8), (1.0, 1.0)):
        logits = torch.full((1, 6), 0.1)
        logits[0, DAMAGES.index("noise")] = probability
        monkeypatch.setattr(diagnosis, "probabilities", lambda model, views, p=logits: p)
        monkeypatch.setattr(diagnosis, "SURE", dict.fromkeys(TASKS, 0.9))
        assert diagnose(waves()) == ([Finding("noise", strength)] if strength else [])


def test_every_damage_has_a_task_and_a_threshold(monkeypatch):
    monkeypatch.setattr(diagnosis, "probabilities", lambda model, views: torch.full((1, 6), 0.999))
    monkeypatch.setattr(diagnosis, "blockiness", lambda image: 1.0)
    assert {each.damage for each in diagnose(waves())} == set(DAMAGES) == set(TASKS) == set(diagnosis.SURE)


@pytest.mark.parametrize("shape", [(1, 1), (95, 300), (96, 96), (191, 200), (1000, 97)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_size_and_type(shape, dtype):
    image = waves(*shape).astype(np.float32) / 255
    image = image if dtype is np.float32 else from_unit(image, np.dtype(dtype))
    crops, view = views_of(diagnosis.in_8_bits(image))
    assert crops.shape == (9, CROP, CROP, 3) and view.shape == (128, 128, 3)
    assert all(each.damage in TASKS for each in diagnose(image))


@pytest.mark.parametrize("corner", [(0, 0), (3, 5)], ids=["whole", "cropped"])
def test_blocks_of_jpegs_are_seen(corner):
    grainy = from_unit(degrade_photograph(waves(400, 300), "gaussian", [3]), UINT8)
    clean = np.asarray(Image.fromarray(grainy).filter(ImageFilter.GaussianBlur(1.5)))

    def saved(quality):
        file = io.BytesIO()
        Image.fromarray(clean).save(file, "jpeg", quality=quality)
        return np.asarray(Image.open(file))[corner[0] :, corner[1] :]

    assert Finding("compression", 1.0) in diagnose(saved(10))
    found = [diagnosis.blockiness(saved(quality)) for quality in (10, 30, 60, 95)]
    assert found == sorted(found, reverse=True)
    assert diagnosis.blockiness(clean) < 0.02
    assert found[-1] < diagnosis.SURE["compression"] * diagnosis.CERTAIN < found[1]


def test_examples_are_seen_as_noisy():
    for path in EXAMPLES:
        assert diagnose(np.asarray(Image.open(path).convert("RGB")))[0] == Finding("noise", 1.0)


@pytest.mark.parametrize(("kind", "damage"), [("gaussian-25", "noise"), ("low-light", "darkness")])
def test_damage_is_seen_and_without_it_nothing(kind, damage):
    clean = waves(256, 256)
    damaged = from_unit(degrade_photograph(clean, kind, [1]), UINT8)
    assert damage in {each.damage for each in diagnose(damaged)}
    assert damage not in {each.damage for each in diagnose(clean)}


def test_auto_stands_alone(tmp_path):
    with pytest.raises(UsageError, match="auto cannot be part of a chain"):
        parse_links("denoise,auto", choice.for_task)
    Image.fromarray(waves()).save(tmp_path / "a.png")
    given = [str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--task", "auto"]
    refused = CliRunner().invoke(app, ["restore", *given, "--model", "denoise-box"])
    assert isinstance(refused.exception, UsageError)


def test_the_command_says_what_it_did(finds, tmp_path):
    finds()
    shutil.copy(EXAMPLES[0], tmp_path / "a.png")
    given = [str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--report", str(tmp_path / "r.jsonl")]
    done = CliRunner().invoke(app, ["restore", *given, "--task", "auto"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    assert "model: auto" in done.output and auto.NOTHING in done.output
    assert auto.NOTHING in json.loads((tmp_path / "r.jsonl").read_text().splitlines()[-1])["notes"]


def test_it_opens_as_the_other_restorers_do():
    assert isinstance(open_restorer("auto"), AutoRestorer)
