import os
import shutil
import signal

import pytest
import torch

from helpers.reference import reference_weights, write_checkpoint
from maximir import MaximirError, UsageError, files, load_model
from maximir.models import checkpoint
from maximir.models.checkpoint import read_tensors
from maximir.training.distributed import Processes
from maximir.training.recipe import Recipe
from maximir.training.run import Execution, Run, first_weights, schedule

ALONE = Processes(torch.device("cpu"))
MODEL = {"features": 8, "stages": 1, "groups": 1, "bottlenecks": 1}


def recipe(**changes):
    fields = {
        "task": "denoise",
        "mixture": {"gaussian": 1.0},
        "steps": 8,
        "phases": [{"until": 1.0, "patch": 64, "batch": 2}],
        "model": MODEL,
        "precision": "fp32",
    }
    return Recipe.from_dict(fields | changes)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 64, 64, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)


def weights(run):
    return {name: value.detach().clone() for name, value in run.model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Every call of a save after which the disk may be all that is left.
BOUNDARIES = ("os.fsync", "os.replace", "pathlib.Path.open", "pathlib.Path.unlink", "pathlib.Path.glob")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run after four steps, with states of the two before the last; and its weights by step."""
    run, known = Run(recipe(), tmp_path_factory.mktemp("trained") / "run", ALONE), {}
    for step in range(1, 5):
        run.train_step(*batch(run.step))
        known[step] = weights(run)
        if step < 4:
            run.save()
    return run, known


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_save_killed_at_any_file_boundary_leaves_a_whole_state(
    boundary, moment, trained, tmp_path, monkeypatch
):
    """The save also drops an old state."""
    run, known = trained
    folder = shutil.copytree(run.folder, tmp_path / "run")
    child = os.fork()
    if child == 0:
        kill_at(boundary, moment, monkeypatch)
        run.folder = folder
        run.save()
        os._exit(0)  # no boundary was met: the test would prove nothing
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL

    resumed = Run(recipe(), folder, ALONE)
    reports = []
    resumed.begin(reports.append)
    assert resumed.step in (3, 4)
    assert not any("damaged" in line for line in reports)
    assert same(weights(resumed), known[resumed.step])
    assert not [path for path in (folder / "states").iterdir() if path.name.startswith(files.PART)]


def kill_at(boundary, moment, monkeypatch):
    owner, name = boundary.rsplit(".", 1)
    home = os if owner == "os" else __import__("pathlib").Path
    original = getattr(home, name)

    def deadly(*args, **kwargs):
        if moment == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(home, name, deadly)


@pytest.mark.slow
def test_a_save_killed_while_it_writes_leaves_the_state_before(tmp_path, monkeypatch):
    run = Run(recipe(), tmp_path, ALONE)
    run.train_step(*batch(0))
    run.save()
    before = weights(run)
    run.train_step(*batch(1))
    child = os.fork()
    if child == 0:
        original = files.write_atomically

        def torn(path, data):
            part = path.with_name(f"{files.PART}torn{path.suffix}")
            part.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            original(path, data)

        monkeypatch.setattr(checkpoint, "write_atomically", torn)
        run.save()
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert len(list((tmp_path / "states").iterdir())) == 2
    resumed = Run(recipe(), tmp_path, ALONE)
    resumed.begin(print)
    assert resumed.step == 1
    assert same(weights(resumed), before)


def test_a_flipped_bit_in_a_state_is_found(tmp_path):
    run = Run(recipe(), tmp_path, ALONE)
    for _ in range(2):
        run.train_step(*batch(run.step))
        run.save()
    newest = run.states()[-1]
    data = bytearray(newest.read_bytes())
    data[-100] ^= 1
    newest.write_bytes(data)
    with pytest.raises(MaximirError, match="damaged"):
        read_tensors(newest)
    reports = []
    resumed = Run(recipe(), tmp_path, ALONE)
    resumed.begin(reports.append)
    assert resumed.step == 1
    assert any(newest.stem in line and "damaged" in line for line in reports)


def test_a_full_disk_at_a_save_keeps_the_state_before(tmp_path, monkeypatch):
    run = Run(recipe(), tmp_path, ALONE)
    run.train_step(*batch(0))
    run.save()
    run.train_step(*batch(1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MaximirError, match=r"step-00000002\.safetensors: cannot be written \(no space left"):
        run.save()
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-00000001.safetensors"]


def test_a_disk_without_room_for_the_states_is_refused_before_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(MaximirError, match="free on the disk"):
        Run(recipe(), tmp_path, ALONE).begin(print)


def test_parts_and_recomputation_change_nothing_but_rounding(tmp_path):
    plain = Run(recipe(), tmp_path / "plain", ALONE)
    other = Run(recipe(), tmp_path / "other", ALONE, Execution(accumulate=2, recompute=True))
    for _ in range(2):
        losses = [run.train_step(*batch(run.step))[0] for run in (plain, other)]
        torch.testing.assert_close(*losses)
        if plain.step == 1:  # afterwards, Adam has made much of little
            for a, b in zip(plain.model.parameters(), other.model.parameters(), strict=True):
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


def test_recomputation_keeps_less_for_the_gradients(tmp_path):
    kept = {}
    for on in (False, True):
        run = Run(recipe(model={**MODEL, "groups": 2}), tmp_path / str(on), ALONE, Execution(recompute=on))
        size = 0

        def pack(tensor):
            nonlocal size
            size += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run.model(batch(0)[0])
        kept[on] = size
    assert kept[True] < 0.6 * kept[False]


def test_batches_that_cannot_be_shared_out(tmp_path):
    with pytest.raises(UsageError, match="a batch of 2 cannot be divided evenly among 1 process"):
        Run(recipe(), tmp_path / "run", ALONE, Execution(accumulate=3))
    with pytest.raises(UsageError, match="whole matrices"):
        Run(recipe(optimizer="muon"), tmp_path / "run", ALONE, Execution(shard=True))
    assert not (tmp_path / "run").exists()


def test_fine_tuning_starts_from_given_weights(tmp_path):
    run = Run(recipe(), tmp_path / "first", ALONE)
    run.train_step(*batch(0))
    file = tmp_path / "weights.safetensors"
    checkpoint.save_model(run.model, file)
    before = weights(run)

    tuned = first_weights(recipe(init=str(file)))
    assert same(dict(tuned.named_parameters()), before)
    fresh = first_weights(recipe(init=str(file), reset_head=True))
    changed = {name for name, value in fresh.named_parameters() if not torch.equal(value, before[name])}
    heads = {id(p) for head in fresh.heads() for p in head.parameters()}
    assert changed == {name for name, p in fresh.named_parameters() if id(p) in heads}
    as_identity = first_weights(recipe(init=str(file), reset_head=True, start_as_identity=True))
    image = batch(0)[0]
    assert torch.equal(as_identity(image)[-1][-1], image)
    with pytest.raises(UsageError, match="has another shape"):
        first_weights(recipe(init=str(file), model={**MODEL, "groups": 2}))


def test_a_schedule_that_goes_on():
    whole = recipe(steps=100, learning_rate=1e-3)
    rest = recipe(steps=50, learning_rate=1e-3, start_at=0.5)
    for step in range(50):
        assert schedule(rest, step) == pytest.approx(schedule(whole, 50 + step))


def test_fine_tuning_starts_from_an_official_checkpoint(tmp_path):
    file = write_checkpoint(tmp_path / "checkpoint.npz", reference_weights("S-1"))
    tuned = first_weights(recipe(init=str(file), model={"stages": 1, "dropout": 0.1}))
    assert same(dict(tuned.named_parameters()), dict(load_model(file).named_parameters()))
    assert tuned.config.dropout == 0.1
