"""Loader processes: no shared memory, and every failure is one sentence."""

import multiprocessing
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maximir import MaximirError
from maximir.training import loader
from maximir.training.recipe import Recipe
from maximir.training.samples import Sample

RECIPE = Recipe.from_dict(
    {
        "task": "denoise",
        "mixture": {"gaussian": 1.0},
        "steps": 3,
        "phases": [{"until": 1.0, "batch": 2, "patch": 64}],
    }
)
pytestmark = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="loader processes inherit what the test replaces"
)


def run(workers):
    return SimpleNamespace(
        processes=SimpleNamespace(rank=0, count=1),
        device=torch.device("cpu"),
        execution=SimpleNamespace(workers=workers),
        step=0,
    )


def numbered(index):
    pixels = torch.full((3, 64, 64), float(index[0]))
    return Sample(pixels, pixels + 1, [str(index[0])], [], torch.tensor([0]))


@pytest.fixture
def load(monkeypatch):
    """Load all batches: what each sample does, and the number of loader processes."""

    def load(sample, workers):
        samples = type("Samples", (), {"__getitem__": sample})
        monkeypatch.setattr(loader, "PhasedSamples", lambda recipe, sources: samples())
        return list(loader.load_batches(RECIPE, {}, run(workers)))

    return load


def test_no_batch_goes_through_shared_memory(load, monkeypatch):
    def full(*args, **more):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    for name in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, name, full)
    alone, beside = (load(lambda self, index: numbered(index), workers) for workers in (0, 2))
    assert len(alone) == len(beside) == 3
    for ours, theirs in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(ours.degraded, theirs.degraded)
        assert ours.origins == theirs.origins
        theirs.degraded.add_(1)  # it can be written to


def unreadable(self, index):
    raise MaximirError("x.png: cannot be read as an image")


def unforeseen(self, index):
    raise ValueError("something\nelse")


def killed(self, index):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        (unreadable, "^x.png: cannot be read as an image$"),
        (unforeseen, r"^a loader process failed \(ValueError: something else\); with --workers 0"),
        (killed, r"^a loader process failed \(DataLoader worker .*fewer --workers"),
    ],
)
def test_a_failure_in_a_loader_process_is_one_sentence(sample, sentence, load):
    with pytest.raises(MaximirError, match=sentence) as caught:
        load(sample, 1)
    assert "\n" not in str(caught.value)


def test_loader_processes_that_cannot_start(load, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loader, "DataLoader", lambda *args, **more: type("Full", (), {"__iter__": full})())
    with pytest.raises(
        MaximirError, match=r"cannot be started \(no space left on device\); with --workers 0"
    ):
        load(numbered, 2)
