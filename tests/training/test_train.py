import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.command import maximir
from helpers.weights import POINTER
from maximir import MaximirError, cli, load_model
from maximir.cli.train import parse_override
from maximir.errors import UsageError
from maximir.models.checkpoint import read_tensors
from maximir.training import train
from maximir.training.distributed import Processes
from maximir.training.plan import PhasePlan
from maximir.training.recipe import Recipe
from maximir.training.run import Execution, Run, locked, schedule
from maximir.training.train import Every

CPU = Execution("cpu")
ALONE = Processes(torch.device("cpu"))
MODEL = {"features": 8, "stages": 1, "groups": 1, "bottlenecks": 1, "dropout": 0.1}
PHASES = [{"until": 0.5, "patch": 64, "batch": 2}, {"until": 1.0, "patch": 64, "batch": 1}]
RECIPE = """
task = "denoise"
mixture = { gaussian = 1.0 }
steps = 100
precision = "fp32"
phases = [{ until = 1.0, patch = 64, batch = 1 }]
[model]
features = 8
stages = 1
groups = 1
bottlenecks = 1
"""


def recipe(**changes):
    fields = {
        "task": "denoise",
        "mixture": {"gaussian": 1.0},
        "validate_with": ["gaussian-25"],
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


@pytest.fixture(scope="module")
def finished(clean, tmp_path_factory):
    """A run of four steps with a state after two; to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train.train(recipe(), [clean], folder, execution=CPU, every=Every(log=1, save=2))
    return folder


@pytest.fixture
def done(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "done")


def final_state(folder):
    return read_tensors(sorted((folder / "states").glob("*.safetensors"))[-1])[1]


@pytest.mark.slow
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
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_what_the_caller_set_in_torch_does_not_matter(optimizer, change, undo, clean, tmp_path):
    chosen, states = recipe(steps=2, phases=PHASES[1:], optimizer=optimizer), []
    torch.manual_seed(7)
    before = torch.get_rng_state()
    for name in ("usual", "changed"):
        if name == "changed":
            change()
        try:
            train.train(chosen, [clean], tmp_path / name, execution=CPU, every=Every(save=1, validate=1))
            kept = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        finally:
            now = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
            undo()
        assert kept == now
        states.append(final_state(tmp_path / name))
    assert torch.equal(torch.get_rng_state(), before), "the program's random numbers are its own"
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert value.dtype == states[1][key].dtype and torch.equal(value, states[1][key]), key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "workers", "precision"), [("adam", 0, "fp32"), ("muon", 2, "fp32"), ("adam", 0, "bf16")]
)
def test_killed_and_resumed_run_ends_bit_identical(
    optimizer, workers, precision, clean, tmp_path, monkeypatch
):
    chosen = recipe(optimizer=optimizer, precision=precision)
    train.train(chosen, [clean], tmp_path / "whole", execution=CPU, every=Every(save=1))
    step = Run.train_step

    def killed(self, *batch):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Run, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(chosen, [clean], tmp_path / "cut", execution=CPU, every=Every(save=2))
    monkeypatch.undo()
    reports = []
    train.train(
        chosen, [clean], tmp_path / "cut", execution=Execution("cpu", workers=workers), report=reports.append
    )
    assert any("resumed from" in line and "00000002" in line for line in reports)
    whole, resumed = final_state(tmp_path / "whole"), final_state(tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    kinds = {name.split(".")[0] for name in whole}
    assert kinds >= {"model", "average", "exp_avg", "exp_avg_sq"}
    assert ("momentum" in kinds) == (optimizer == "muon")


def test_damaged_newest_state_is_passed_over(clean, done):
    newest = sorted((done / "states").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    reports = []
    train.train(recipe(), [clean], done, execution=CPU, report=reports.append)
    assert any("damaged" in line and newest.stem in line for line in reports)
    assert newest.exists()  # written again
    assert any("resumed from" in line and "00000002" in line for line in reports)


def test_a_state_that_git_lfs_keeps_elsewhere_is_named_and_left_alone(clean, done):
    newest = sorted((done / "states").glob("*.safetensors"))[-1]
    newest.write_bytes(POINTER)
    with pytest.raises(MaximirError, match=f"{newest.name}: is a Git LFS pointer"):
        train.train(recipe(), [clean], done, execution=CPU)
    assert newest.read_bytes() == POINTER


def test_training_learns_and_writes_what_it_says(clean, tmp_path):
    steps = 40
    chosen = recipe(
        steps=steps, learning_rate=3e-3, start_as_identity=True, ema=0.9, phases=[PHASES[1] | {"batch": 2}]
    )
    path = train.train(
        chosen,
        [clean],
        tmp_path,
        validation=[clean],
        execution=CPU,
        every=Every(log=10, validate=20, save=20),
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    scores = [line["psnr_gaussian-25"] for line in lines if "psnr_gaussian-25" in line]
    assert len(scores) == 2
    assert scores[-1] > 20.6  # the noisy input has 20.2
    assert load_model(path).config == chosen.model
    assert len(list((tmp_path / "states").iterdir())) == 2
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
    assert list((tmp_path / "tensorboard").iterdir())
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == steps


def test_the_average_follows_the_weights(tmp_path):
    run = Run(recipe(ema=0.5), tmp_path, ALONE)
    before = [p.detach().clone() for p in run.average.values()]
    run.train_step(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    decay = 1 / 11  # the first step's, by its warm-up
    for old, average, now in zip(before, run.average.values(), run.model.parameters(), strict=True):
        torch.testing.assert_close(average, decay * old + (1 - decay) * now)


def test_a_loss_that_is_not_finite_stops_the_run(clean, tmp_path):
    run = Run(recipe(), tmp_path, ALONE)
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


def test_a_resumed_run_logs_each_step_once(clean, done):
    (done / "states" / "step-00000004.safetensors").unlink()
    train.train(recipe(), [clean], done, execution=CPU, every=Every(log=1))
    lines = [json.loads(line) for line in (done / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_states_of_another_recipe_and_a_broken_recipe(clean, done):
    (done / "recipe.json").write_text("")
    with pytest.raises(MaximirError, match="delete it to resume"):
        train.train(recipe(), [clean], done, execution=CPU)
    (done / "recipe.json").unlink()
    with pytest.raises(MaximirError, match="belongs to another recipe"):
        train.train(recipe(seed=1), [clean], done, execution=CPU)


def test_another_recipe_does_not_take_over_a_run(clean, done):
    with pytest.raises(MaximirError, match=r"started with another recipe \(seed was 0, now 1\)"):
        train.train(recipe(seed=1), [clean], done, execution=CPU)


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("precision=fp32", "fp32"),
        ('precision="fp32"', "fp32"),
        ("steps=100", 100),
        ("rotate=true", True),
        ("muon_learning_rate=2e-3", 2e-3),
        ("init = denoise-sidd", "denoise-sidd"),
    ],
)
def test_words_need_no_quotes(item, value):
    assert parse_override(item)[1] == value


@pytest.mark.parametrize("item", ["steps", "=3", "steps=1 2", "precision='fp32"])
def test_what_is_no_override(item):
    with pytest.raises(UsageError, match="must be KEY=VALUE"):
        parse_override(item)


@pytest.mark.parametrize(("stops_at", "sentence"), [(1, "begins again"), (3, "continues after step 2")])
def test_an_interrupted_command_says_how_to_go_on(stops_at, sentence, clean, tmp_path, monkeypatch, capsys):
    step = Run.train_step

    def interrupted(self, *batch):
        if self.step == stops_at:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Run, "train_step", interrupted)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    words = ["train", tmp_path / "recipe.toml", "--data", clean, "--out", tmp_path / "run"]
    maximir(*words, "--save-every", 2, "--device", "cpu", expect=130)
    assert f"interrupted; the same command {sentence}" in capsys.readouterr().err


def test_command(clean, tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    arguments = ["train", tmp_path / "recipe.toml", "--data", clean, "--out", tmp_path / "run"]
    sets = ["--set", "steps=1", "--set", "model.features=16", "--set", "model.groups=2"]
    monkeypatch.setattr("sys.argv", ["maximir", *map(str, arguments), *sets, "--device", "cpu"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    assert "model.safetensors" in capsys.readouterr().out
    config = load_model(tmp_path / "run" / "model.safetensors").config
    assert (config.features, config.groups) == (16, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phases": [{"until": 1.0, "patch": 256, "batch": 1}]}, "at least 256 pixels"),
    ],
)
def test_bad_recipes_for_the_data(changes, reason, clean, tmp_path):
    with pytest.raises(MaximirError, match=reason):
        train.train(recipe(**changes), [clean], tmp_path / "run", execution=CPU)
    assert not (tmp_path / "run").exists()


def test_bad_folders(clean, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaximirError, match="no such folder"):
        train.train(recipe(), [tmp_path / "nowhere"], tmp_path / "run", execution=CPU)
    with pytest.raises(MaximirError, match="no images"):
        train.train(recipe(), [tmp_path / "empty"], tmp_path / "run", execution=CPU)
    (tmp_path / "file").write_text("")
    with pytest.raises(MaximirError, match="not a directory"):
        train.train(recipe(), [clean], tmp_path / "file" / "run", execution=CPU)


def test_the_message_of_a_loss_that_is_not_finite_names_the_batch(clean, tmp_path, monkeypatch):
    step = Run.train_step

    def poisoned(self, degraded, target, *others):
        return step(self, degraded * (torch.nan if self.step == 2 else 1), target, *others)

    monkeypatch.setattr(Run, "train_step", poisoned)
    with pytest.raises(MaximirError, match=r"step 2: the loss is nan .*/\d\.png \(gaussian\)\. The"):
        train.train(recipe(), [clean], tmp_path, execution=CPU, every=Every(save=1))
    assert [path.name for path in sorted((tmp_path / "states").iterdir())] == [
        f"step-0000000{number}.safetensors" for number in (1, 2)
    ]
    monkeypatch.undo()
    train.train(recipe(), [clean], tmp_path, execution=CPU)  # the states are good


def damage(path):
    """Cut into the pixels: the header stays readable."""
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize("in_memory", [1 << 30, 0])
def test_a_damaged_image_is_named_skipped_and_counted(in_memory, clean, tmp_path, monkeypatch):
    folder = tmp_path / "some"
    shutil.copytree(clean, folder)
    damage(folder / "1.png")
    monkeypatch.setattr(train, "available_memory", lambda: in_memory)
    reports = []
    train.train(
        recipe(), [folder], tmp_path / "run", execution=CPU, every=Every(log=4), report=reports.append
    )
    assert [line for line in reports if "skipped" in line and "1.png" in line]
    if in_memory == 0:
        (line,) = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
        assert line["skipped_images"] == 1


def test_pairs_are_trained_on_and_held_out(clean, tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        image = Image.open(clean / f"{number}.png")
        image.save(tmp_path / f"{name}_target.png")
        image.point(lambda value: value // 2).save(tmp_path / f"{name}_input.png")
    chosen = recipe(mixture={"pairs": 1.0}, hold_out=["b"], mixup=0.5)
    reports = []
    train.train(chosen, [], tmp_path / "run", pairs=[tmp_path], execution=CPU, report=reports.append)
    assert "2 pairs; 1 to validate with" in reports[0]
    assert any("psnr_pairs" in line for line in reports)


def test_data_and_mixture_must_fit(clean, tmp_path):
    for chosen, data, pairs, reason in (
        (recipe(), [], [], "needs --data"),
        (recipe(mixture={"pairs": 1.0}), [], [], "needs --pairs"),
        (recipe(), [clean], [clean], "does not use --pairs"),
        (recipe(mixture={"pairs": 1.0}), [clean], [clean], "does not use --data"),
        (recipe(mixture={"depth-haze": 1.0}), [clean], [], "depth"),
        (recipe(hold_out=["*"]), [clean], [], "held out"),
    ):
        with pytest.raises(MaximirError, match=reason):
            train.train(chosen, data, tmp_path / "run", pairs=pairs, execution=CPU)
    assert not (tmp_path / "run").exists()


def test_compile_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network: asked.append(network) or network)
    run = Run(recipe(), tmp_path, ALONE, Execution("cpu", compile=True))
    run.train_step(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    assert asked == [run.model]


def test_plan(clean, tmp_path, monkeypatch, capsys):
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(
        'task = "denoise"\nmixture = { gaussian = 1.0 }\nsteps = 1000\nprecision = "fp32"\n'
        "phases = [{ until = 0.4, patch = 64, batch = 2 }, { until = 1.0, patch = 64, batch = 1 }]\n"
        "[model]\nfeatures = 8\nstages = 1\ngroups = 1\nbottlenecks = 1\n"
    )
    arguments = [
        "train",
        recipe_file,
        "--data",
        clean,
        "--plan",
        "--device",
        "cpu",
        "--out",
        tmp_path / "run",
    ]
    monkeypatch.setattr("sys.argv", ["maximir", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    out = capsys.readouterr().out
    assert "1.26 M parameters, 1,000 steps" in out
    assert "400" in out
    assert "600" in out
    assert "in all on this machine" in out
    assert not (tmp_path / "run").exists()


def test_planned_times_add_up():
    phase = recipe().phases[0]
    alone = PhasePlan(phase, steps=10, step_seconds=2.0, sample_seconds=1.0, memory=0)
    assert alone.seconds(workers=0) == 30
    assert alone.seconds(workers=1) == 20  # samples are made beside
    slow = PhasePlan(phase, steps=10, step_seconds=2.0, sample_seconds=8.0, memory=0)
    assert slow.seconds(workers=2) == 40


@pytest.mark.parametrize(
    ("out", "sentence"), [("clean/run", "whose images are read"), ("clean/0.png", "is a file")]
)
def test_the_command_does_not_train_among_photographs(out, sentence, clean, tmp_path, monkeypatch, capsys):
    shutil.copytree(clean, tmp_path / "clean")
    words = ["denoise-small", "--data", tmp_path / "clean", "--out", tmp_path / out]
    monkeypatch.setattr("sys.argv", ["maximir", "train", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "clean" / "run").exists()


def test_a_folder_is_trained_in_by_one_process_at_a_time(clean, tmp_path):
    with locked(tmp_path), pytest.raises(MaximirError, match="another process trains in this folder"):
        train.train(recipe(), [clean], tmp_path, execution=CPU)
    train.train(recipe(), [clean], tmp_path, execution=CPU)


def test_a_torn_log_is_mended(clean, done):
    log = done / "log.jsonl"
    whole = [line for line in log.read_text().splitlines() if "loss" in line]
    log.write_bytes(log.read_bytes() + b'{"st\n\x00\x00\xff\n[1]\n{"step": 3')
    (done / "states" / "step-00000004.safetensors").unlink()
    train.train(recipe(), [clean], done, execution=CPU, every=Every(log=1))
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if "loss" in line]
    assert steps == [json.loads(line)["step"] for line in whole] == [1, 2, 3, 4]


def test_states_that_cannot_be_read_are_not_given_up(clean, done, monkeypatch):
    states = sorted(path.name for path in (done / "states").iterdir())

    def unreadable(path):
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr("maximir.models.checkpoint.read_tensors", unreadable)
    with pytest.raises(MaximirError, match="too many open files"):
        train.train(recipe(), [clean], done, execution=CPU)
    assert sorted(path.name for path in (done / "states").iterdir()) == states
    monkeypatch.undo()
    for name in states:
        (done / "states" / name).write_bytes(b"torn")
    with pytest.raises(MaximirError, match="no state is whole"):
        train.train(recipe(), [clean], done, execution=CPU)


def test_other_images_than_before_are_reported(clean, done, tmp_path):
    (done / "states" / "step-00000004.safetensors").unlink()
    shutil.copytree(clean, tmp_path / "more")
    shutil.copy(clean / "1.png", tmp_path / "more" / "3.png")
    reports = []
    train.train(recipe(), [tmp_path / "more"], done, execution=CPU, report=reports.append)
    assert any("have changed since the run began" in line for line in reports)


def test_validation_without_a_degradation_is_refused(clean, tmp_path):
    for number, part in enumerate(("input", "target")):
        shutil.copy(clean / f"{number}.png", tmp_path / f"a_{part}.png")
    chosen = recipe(mixture={"pairs": 1.0}, validate_with=[])
    with pytest.raises(MaximirError, match="validate_with"):
        train.train(chosen, [], tmp_path / "run", pairs=[tmp_path], validation=[clean], execution=CPU)
