"""Training that is killed, and training by several processes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.command import maximir
from maximir.models.checkpoint import read_tensors

RANK = Path(__file__).parents[1] / "helpers/rank.py"
RECIPE = """
task = "denoise"
mixture = { gaussian = 1.0 }
steps = 6
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
CALM = "learning_rate = 2e-4\nstart_as_identity = true"  # or rounding grows from step to step
EVERY = ("--log-every", "1", "--save-every", "2")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survival")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "plain.toml").write_text(
        RECIPE.replace("dropout = 0.1\n", "")
        .replace("learning_rate = 1e-3", CALM)
        .replace("steps = 6", "steps = 3")
    )
    (folder / "clean").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).resize((100, 90), Image.Resampling.BICUBIC).save(
            folder / f"clean/{number}.png"
        )
    return folder


def arguments(place, run, *more, recipe="recipe.toml"):
    data = ("--data", place / "clean", "--out", place / run, "--device", "cpu")
    return list(map(str, ("train", place / recipe, *data, *more)))


def last_state(place, run):
    return read_tensors(sorted((place / run / "states").glob("step-*.safetensors"))[-1])[1]


def losses(place, run):
    lines = map(json.loads, (place / run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.long
def test_killed_while_it_trains_it_ends_bit_identical(place, capsys):
    """The command, with loader processes, killed after its first state."""
    more = ("--save-every", "2", "--workers", "2")
    states = place / "killed" / "states"
    process = subprocess.Popen(
        [sys.executable, "-m", "maximir", *arguments(place, "killed", *more)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ONE_THREAD,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:  # until it has got somewhere
        if states.exists() and list(states.glob("step-*")):
            break
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    maximir(*arguments(place, "killed", *more))
    assert "resumed from" in capsys.readouterr().out
    maximir(*arguments(place, "undisturbed", "--save-every", "2"))
    resumed, undisturbed = last_state(place, "killed"), last_state(place, "undisturbed")
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)
    finished = [read_tensors(place / name / "model.safetensors")[1] for name in ("killed", "undisturbed")]
    assert all(torch.equal(finished[0][name], finished[1][name]) for name in finished[0])


@pytest.fixture(scope="module")
def alone(place):
    """The run of one process, with which those of two are compared."""
    maximir(*arguments(place, "one", *EVERY, recipe="plain.toml"))
    return "one"


def check_like(place, one, two):
    """The same global batches, so the same losses but for the order of float32 sums: 1e-4 after 3 steps."""
    expected, found = losses(place, one), losses(place, two)
    assert expected.keys() == found.keys() == {1, 2, 3}
    assert np.allclose(list(expected.values()), list(found.values()), rtol=1e-4, atol=0)
    a, b = last_state(place, one), last_state(place, two)
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[key], b[key], rtol=1e-2, atol=1e-4) for key in a if key.startswith("model."))


KINDS = ["ddp", pytest.param("fsdp2", marks=pytest.mark.long)]  # FSDP2 takes its time to begin


@pytest.fixture(scope="module", params=KINDS)
def pair(request, place):
    """The name of a run by two processes; NAME-resumed is the same, resumed from its first state."""
    kind = request.param
    shard = ("--shard",) if kind == "fsdp2" else ()
    first, again = (
        arguments(place, run, *EVERY, *shard, recipe="plain.toml") for run in (kind, f"{kind}-resumed")
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, RANK, str(rank), str(place / f"{kind}-meeting"), json.dumps([first, again])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ONE_THREAD,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert "resumed from" in said[0]
    return kind


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(place, alone, pair):
    check_like(place, alone, pair)


def test_two_processes_go_on_to_the_same_bits(place, pair):
    whole, resumed = last_state(place, pair), last_state(place, f"{pair}-resumed")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_one_process_goes_on_with_the_run_of_two(place, alone, pair, capsys):
    changing = f"{pair}-changing"
    shutil.copytree(place / pair, place / changing)
    sorted((place / changing / "states").iterdir())[-1].unlink()
    maximir(*arguments(place, changing, *EVERY, recipe="plain.toml"))
    assert "resumed from" in capsys.readouterr().out
    one, changing = losses(place, alone), losses(place, changing)
    assert np.allclose(list(one.values()), list(changing.values()), rtol=1e-4, atol=0)


@pytest.mark.long
def test_torchrun(place, alone):
    """By the documented command."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "maximir"]
    command += arguments(place, "torchrun", *EVERY, recipe="plain.toml")
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    check_like(place, alone, "torchrun")
