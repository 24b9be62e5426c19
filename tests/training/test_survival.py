"""Training that is killed, and training by several processes: as its users run it."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from maximir.models.checkpoint import read_tensors

RECIPE = """
task = "denoise"
mixture = { gaussian = 1.0 }
steps = 12
learning_rate = 1e-3
precision = "fp32"
phases = [{ until = 0.5, patch = 64, batch = 4 }, { until = 1.0, patch = 64, batch = 2 }]
[model]
features = 8
stages = 1
groups = 1
bottlenecks = 1
dropout = 0.1
"""
KILLS = 1
CALM = "learning_rate = 2e-4\nstart_as_identity = true"  # or rounding grows from step to step


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survival")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "plain.toml").write_text(
        RECIPE.replace("dropout = 0.1\n", "")
        .replace("learning_rate = 1e-3", CALM)
        .replace("steps = 12", "steps = 4")
    )
    (folder / "clean").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).resize((100, 90), Image.Resampling.BICUBIC).save(
            folder / f"clean/{number}.png"
        )
    return folder


def command(place, run, *more, recipe="recipe.toml", processes=1):
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes > 1 else []
    train = ["-m", "maximir", "train", str(place / recipe), "--data", str(place / "clean")]
    return [sys.executable, *launcher, *train, "--out", str(place / run), "--device", "cpu", *more]


def run_training(*args, **kwargs):
    done = subprocess.run(command(*args, **kwargs), capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def last_state(place, run):
    return read_tensors(sorted((place / run / "states").glob("step-*.safetensors"))[-1])[1]


@pytest.fixture(scope="module")
def undisturbed(place):
    run_training(place, "undisturbed", "--save-every", "2")
    return last_state(place, "undisturbed")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_random_moments_it_ends_bit_identical(workers, place, undisturbed):
    chance = random.Random(int(workers))
    run = f"killed-{workers}"
    states = place / run / "states"
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(place, run, "--save-every", "2", "--workers", workers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        before = set(states.glob("step-*")) if states.exists() else set()
        while process.poll() is None and time.monotonic() < deadline:  # until it has got somewhere
            if states.exists() and set(states.glob("step-*")) - before:
                break
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.2))
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    out = run_training(place, run, "--save-every", "2", "--workers", workers)
    assert "resumed from" in out
    resumed = last_state(place, run)
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)
    finished = [read_tensors(place / name / "model.safetensors")[1] for name in (run, "undisturbed")]
    assert all(torch.equal(finished[0][name], finished[1][name]) for name in finished[0])


def losses(place, run):
    lines = map(json.loads, (place / run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


SHARD = pytest.mark.parametrize("shard", [(), ("--shard",)], ids=["ddp", "fsdp2"])


@SHARD
def test_two_processes_give_the_loss_curve_of_one(shard, place):
    """The same global batches, so the same losses but for the order of float32 sums: 1e-4 after 4 steps."""
    every = ("--log-every", "1", "--save-every", "2")
    if not (place / "one").exists():
        run_training(place, "one", *every, recipe="plain.toml")
    name = "two" + "".join(shard)
    run_training(place, name, *every, *shard, recipe="plain.toml", processes=2)
    one, two = losses(place, "one"), losses(place, name)
    assert one.keys() == two.keys() == set(range(1, 5))
    assert np.allclose(list(one.values()), list(two.values()), rtol=1e-4, atol=0)
    a, b = last_state(place, "one"), last_state(place, name)
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[key], b[key], rtol=1e-2, atol=1e-4) for key in a if key.startswith("model."))

    # Cut off after two steps, the two go on to the same bits; and so does one alone, but for rounding.
    (place / name / "states" / "step-00000004.safetensors").unlink()
    if not shard:
        shutil.copytree(place / name, place / "changing")
    assert "resumed from" in run_training(place, name, *every, *shard, recipe="plain.toml", processes=2)
    resumed = last_state(place, name)
    assert resumed.keys() == b.keys()
    assert all(torch.equal(resumed[key], b[key]) for key in b)
    if not shard:
        assert "resumed from" in run_training(place, "changing", *every, recipe="plain.toml")
        changing = losses(place, "changing")
        assert np.allclose(list(one.values()), list(changing.values()), rtol=1e-4, atol=0)
