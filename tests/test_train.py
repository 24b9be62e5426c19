import json

import numpy as np
import pytest
import torch
from PIL import Image

from maximir import MaximirError, cli, load_model, train
from maximir.checkpoint import read_tensors
from maximir.recipe import Recipe
from maximir.run import Run, schedule
from maximir.train import Every

MODEL = {"features": 8, "stages": 1, "groups": 1, "bottlenecks": 1, "dropout": 0.1}
PHASES = [{"until": 0.5, "patch": 64, "batch": 2}, {"until": 1.0, "patch": 64, "batch": 1}]


def recipe(**changes):
    fields = {
        "task": "denoise",
        "degradation": "blind-gaussian",
        "steps": 4,
        "phases": PHASES,
        "model": MODEL,
        "precision": "fp32",
    }
    return Recipe.from_dict(fields | changes)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    y, x = np.mgrid[0:80, 0:90]
    for number in range(3):
        waves = [127 + 100 * np.sin(x / (3 + number) + y / (5 + channel)) for channel in range(3)]
        Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def final_state(folder):
    return read_tensors(sorted((folder / "states").glob("*.safetensors"))[-1])[1]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_run_ends_bit_identical(optimizer, workers, clean, tmp_path, monkeypatch):
    chosen = recipe(optimizer=optimizer)
    train.train(chosen, [clean], tmp_path / "whole", device="cpu", every=Every(save=1))
    step = Run.train_step

    def killed(self, *batch):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Run, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(chosen, [clean], tmp_path / "cut", device="cpu", every=Every(save=2))
    monkeypatch.undo()
    reports = []
    train.train(chosen, [clean], tmp_path / "cut", device="cpu", workers=workers, report=reports.append)
    assert any("resumed from" in line and "00000002" in line for line in reports)
    whole, resumed = final_state(tmp_path / "whole"), final_state(tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    kinds = {name.split(".")[0] for name in whole}
    assert kinds >= {"model", "average", "exp_avg", "exp_avg_sq"}
    assert ("momentum" in kinds) == (optimizer == "muon")


def test_damaged_newest_state_is_passed_over(clean, tmp_path):
    train.train(recipe(), [clean], tmp_path, device="cpu", every=Every(save=2))
    newest = sorted((tmp_path / "states").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    reports = []
    train.train(recipe(), [clean], tmp_path, device="cpu", report=reports.append)
    assert any("damaged" in line and newest.stem in line for line in reports)
    assert newest.exists()  # written again
    assert any("resumed from" in line and "00000002" in line for line in reports)


def test_training_learns_and_writes_what_it_says(clean, tmp_path):
    steps = 40
    chosen = recipe(
        steps=steps, learning_rate=3e-3, start_as_identity=True, ema=0.9, phases=[PHASES[1] | {"batch": 2}]
    )
    path = train.train(
        chosen, [clean], tmp_path, validation=clean, device="cpu", every=Every(log=10, validate=20, save=20)
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    scores = [line["psnr_sigma25"] for line in lines if "psnr_sigma25" in line]
    assert len(scores) == 2
    assert scores[-1] > 20.6  # the noisy input has 20.2
    assert load_model(path).config == chosen.model
    assert len(list((tmp_path / "states").iterdir())) == 2
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
    assert list((tmp_path / "tensorboard").iterdir())
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == steps


def test_the_average_follows_the_weights(tmp_path):
    run = Run(recipe(ema=0.5), tmp_path, torch.device("cpu"))
    before = [p.detach().clone() for p in run.average.parameters()]
    run.train_step(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    decay = 1 / 11  # the first step's, by its warm-up
    for old, average, now in zip(before, run.average.parameters(), run.model.parameters(), strict=True):
        torch.testing.assert_close(average, decay * old + (1 - decay) * now)


def test_a_loss_that_is_not_finite_stops_the_run(clean, tmp_path):
    run = Run(recipe(), tmp_path, torch.device("cpu"))
    before = [p.detach().clone() for p in run.model.parameters()]
    with pytest.raises(MaximirError, match="step 0: the loss is nan"):
        run.train_step(torch.full((1, 3, 64, 64), torch.nan), torch.rand(1, 3, 64, 64))
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


def test_schedule():
    chosen = recipe(steps=110, warmup=10, learning_rate=1e-3, final_learning_rate=1e-5)
    factors = [schedule(chosen, step) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1)
    assert factors[60] == pytest.approx((1 + 0.01) / 2)
    assert factors[-1] == pytest.approx(0.01, abs=1e-3)
    assert factors[9:] == sorted(factors[9:], reverse=True)


def test_a_resumed_run_logs_each_step_once(clean, tmp_path):
    train.train(recipe(), [clean], tmp_path, device="cpu", every=Every(log=1, save=2))
    (tmp_path / "states" / "step-00000004.safetensors").unlink()
    train.train(recipe(), [clean], tmp_path, device="cpu", every=Every(log=1))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_states_of_another_recipe_and_a_broken_recipe(clean, tmp_path):
    train.train(recipe(), [clean], tmp_path, device="cpu")
    (tmp_path / "recipe.json").write_text("")
    with pytest.raises(MaximirError, match="delete it to go on"):
        train.train(recipe(), [clean], tmp_path, device="cpu")
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(MaximirError, match="is of another recipe"):
        train.train(recipe(seed=1), [clean], tmp_path, device="cpu")


def test_another_recipe_does_not_take_over_a_run(clean, tmp_path):
    train.train(recipe(), [clean], tmp_path, device="cpu")
    with pytest.raises(MaximirError, match="started with another recipe"):
        train.train(recipe(seed=1), [clean], tmp_path, device="cpu")


def test_command(clean, tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.toml").write_text(
        'task = "denoise"\ndegradation = "blind-gaussian"\nsteps = 100\nprecision = "fp32"\n'
        "phases = [{ until = 1.0, patch = 64, batch = 1 }]\n"
        "[model]\nfeatures = 8\nstages = 1\ngroups = 1\nbottlenecks = 1\n"
    )
    arguments = ["train", tmp_path / "recipe.toml", "--data", clean, "--out", tmp_path / "run"]
    monkeypatch.setattr("sys.argv", ["maximir", *map(str, arguments), "--set", "steps=1", "--device", "cpu"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    assert "model.safetensors" in capsys.readouterr().out
    load_model(tmp_path / "run" / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phases": [{"until": 1.0, "patch": 256, "batch": 1}]}, "at least 256 pixels"),
    ],
)
def test_bad_recipes_for_the_data(changes, reason, clean, tmp_path):
    with pytest.raises(MaximirError, match=reason):
        train.train(recipe(**changes), [clean], tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_bad_folders(clean, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaximirError, match="no such folder"):
        train.train(recipe(), [tmp_path / "nowhere"], tmp_path / "run", device="cpu")
    with pytest.raises(MaximirError, match="no images"):
        train.train(recipe(), [tmp_path / "empty"], tmp_path / "run", device="cpu")
    (tmp_path / "file").write_text("")
    with pytest.raises(MaximirError, match="not a directory"):
        train.train(recipe(), [clean], tmp_path / "file" / "run", device="cpu")
