"""Learning from a model's results."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.command import maximir
from maximir import Maxim, MaximirError, UsageError
from maximir.engine import network as engine
from maximir.models import checkpoint
from maximir.network.config import MaximConfig
from maximir.training import train
from maximir.training.data import find_scenes
from maximir.training.recipe import Recipe
from maximir.training.run import Execution, Run
from maximir.training.samples import Samples, Views, collate, even_field, kind_of, views
from maximir.training.teacher import CLEAN, SMOOTHED, TAUGHT, Teacher, smooth_part

CPU = Execution("cpu")
MODEL = {"features": 8, "stages": 1, "groups": 1, "bottlenecks": 1, "dropout": 0.0}


def recipe(**changes):
    fields = {
        "task": "denoise",
        "mixture": {"gaussian": 1.0},
        "steps": 2,
        "model": MODEL,
        "precision": "fp32",
    }
    return Recipe.from_dict(fields | {"phases": [{"until": 1.0, "patch": 64, "batch": 1}]} | changes)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    return folder


@pytest.fixture(scope="module")
def wise(tmp_path_factory):
    """A teacher's file: two stages, random weights."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("teacher") / "wise.safetensors"
    checkpoint.save_model(Maxim(MaximConfig.from_dict(MODEL | {"stages": 2})), path)
    return path


def sources(clean):
    return {
        "clean": Views(views(find_scenes([clean]), [1.0], 64, pytest.fail, "clean"), 1 << 20, pytest.fail)
    }


def test_smooth_is_what_a_cubic_can_follow():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 64), indexing="ij")
    curve = torch.stack([0.5 + 0.2 * x - 0.1 * x * y**2, 0.3 * y**3, torch.full_like(x, 0.9)])[None]
    grid = 0.02 * torch.sin(torch.arange(64) * 2 * torch.pi / 8)
    torch.testing.assert_close(smooth_part(curve), curve, atol=1e-6, rtol=0)
    torch.testing.assert_close(smooth_part(curve + grid), curve, atol=1e-2, rtol=0)  # at its borders
    assert (smooth_part(curve + grid) - curve - grid).abs().max() > 0.012  # and the grid is gone


def test_even_fields_are_even():
    fields = [even_field(np.random.default_rng(number), 32) for number in range(60)]
    assert all(field.shape == (32, 32, 3) and field.dtype == np.float32 for field in fields)
    assert all(field.min() >= 0 and field.max() <= 1 for field in fields)
    assert max(np.abs(np.diff(field, axis=axis)).max() for field in fields for axis in (0, 1)) < 0.1
    flat = sum(np.ptp(field, axis=(0, 1)).max() == 0 for field in fields)
    assert 10 < flat < 40
    means = [field.mean() for field in fields]
    assert min(means) < 0.15 and max(means) > 0.85


def test_lessons_of_samples(clean):
    mixture = {"gaussian": 1.0, "as-is": 1.0, "even": 1.0}
    drawn = Samples(mixture, sources(clean), 3, taught=0.5)
    told = Counter(
        (sample.origins[0].partition("(")[2], int(sample.lessons))
        for sample in (drawn[n, 64] for n in range(90))
    )
    assert set(told) == {("gaussian)", CLEAN), ("gaussian)", TAUGHT), ("as-is)", TAUGHT), ("even)", SMOOTHED)}
    assert min(told.values()) >= 8
    alone = Samples(mixture, sources(clean), 3)
    assert {int(alone[number, 64].lessons) for number in range(20)} == {CLEAN}
    even = next(alone[number, 64] for number in range(20) if "even" in alone[number, 64].origins[0])
    assert torch.equal(even.degraded, even.clean)
    assert kind_of("even") == "even" and kind_of("as-is") == "clean"


def test_blends_of_lessons(clean):
    blended = Samples({"as-is": 1.0, "even": 1.0}, sources(clean), 1, taught=0.0, mixup=1.0)
    for number in range(12):
        sample = blended[number, 64]
        kinds = {origin.rpartition("(")[2] for origin in sample.origins}
        assert int(sample.lessons) == (SMOOTHED if kinds == {"even)"} else TAUGHT)
    assert collate([blended[0, 64], blended[1, 64]]).lessons.shape == (2,)


def test_a_teacher_stands_in_for_the_clean_image(wise):
    taught = Teacher(str(wise), torch.device("cpu"))
    degraded, clean = torch.rand(2, 4, 3, 64, 64).unbind()
    with torch.no_grad():
        alone, even = engine.run(taught.model, degraded[[1, 2]])[-1][-1].clamp(0, 1)
    targets = taught.targets(degraded, clean, torch.tensor([CLEAN, TAUGHT, SMOOTHED, CLEAN]))
    assert torch.equal(targets[[0, 3]], clean[[0, 3]])
    torch.testing.assert_close(targets[1], alone)
    torch.testing.assert_close(targets[2], smooth_part(even))
    assert taught.targets(degraded, clean, torch.zeros(4, dtype=torch.int64)) is clean


@pytest.mark.slow
def test_a_run_learns_from_its_teacher(clean, wise, tmp_path, monkeypatch):
    seen = []
    step = Run.train_step

    def spy(self, degraded, target, origins, lessons):
        seen.append((degraded, self.teacher.targets(degraded, target, lessons)))
        return step(self, degraded, target, origins, lessons)

    monkeypatch.setattr(Run, "train_step", spy)
    chosen = recipe(mixture={"as-is": 1.0}, teacher=str(wise))
    path = train.train(chosen, [clean], tmp_path, execution=CPU)
    master = checkpoint.load_model(wise)
    assert len(seen) == 2
    with torch.no_grad():
        for degraded, target in seen:
            torch.testing.assert_close(target, engine.run(master, degraded)[-1][-1].clamp(0, 1))
    assert checkpoint.read(path).facts["recipe"]["teacher"] == wise.name  # not where it lay
    monkeypatch.undo()
    other = train.train(recipe(mixture={"gaussian": 1.0}), [clean], tmp_path / "alone", execution=CPU)
    a, b = (checkpoint.read_tensors(p)[1] for p in (path, other))
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_the_target_is_what_is_learned(wise, tmp_path):
    """With the teacher's own first weights and only its lessons, the loss is that of a perfect pupil."""
    from maximir.training.distributed import Processes

    run = Run(
        recipe(model=MODEL | {"stages": 2}, init=str(wise), teacher=str(wise)),
        tmp_path,
        Processes(torch.device("cpu")),
    )
    degraded = torch.rand(1, 3, 64, 64) * 0.2 + 0.4
    own, _ = run.train_step(degraded, torch.zeros_like(degraded), lessons=torch.tensor([CLEAN]))
    run.step = 0
    taught, _ = run.train_step(degraded, torch.zeros_like(degraded), lessons=torch.tensor([TAUGHT]))
    assert taught < own


def test_even_fields_alone_need_no_photographs(tmp_path):
    path = train.train(recipe(mixture={"even": 1.0}), [], tmp_path, execution=CPU)
    assert path.exists()


def test_as_is_needs_a_teacher():
    with pytest.raises(MaximirError, match="'as-is' in a mixture needs a teacher"):
        recipe(mixture={"as-is": 1.0})


def test_patches_must_suit_the_teacher(tmp_path):
    checkpoint.save_model(Maxim(MaximConfig.from_dict(MODEL | {"unshuffle": 2})), tmp_path / "t.safetensors")
    chosen = recipe(mixture={"as-is": 1.0}, teacher=str(tmp_path / "t.safetensors"))
    with pytest.raises(UsageError, match=r"multiples of 128 for the teacher .*t.safetensors, not 64"):
        train.train(chosen, [], tmp_path / "run", execution=CPU)
    assert not (tmp_path / "run").exists()


def test_on_the_command_line(clean, wise, tmp_path, capsys):
    (tmp_path / "r.toml").write_text(
        'task = "retouch"\nmixture = { as-is = 1.0 }\nsteps = 1\nprecision = "fp32"\nteacher = "nobody"\n'
        "phases = [{ until = 1.0, patch = 64, batch = 1 }]\n"
        "[model]\nfeatures = 8\nstages = 2\ngroups = 1\nbottlenecks = 1\ndropout = 0.0\n"
    )
    words = ["train", str(tmp_path / "r.toml"), "--data", str(clean), "--out", str(tmp_path / "run")]
    maximir(*words, "--device", "cpu", expect=2)
    assert "nobody" in capsys.readouterr().err
    maximir(*words, "--teacher", wise, "--init", wise, "--stages", "1", "--device", "cpu")
    assert checkpoint.load_model(tmp_path / "run" / "model.safetensors").config.stages == 1
