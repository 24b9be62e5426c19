"""Batches of samples, made between the steps or by loader processes.

Loader processes send each batch through a pipe. torch's default is shared memory, which containers limit to
64 MB: a batch that does not fit never arrives, and training hangs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maximir.errors import MaximirError
from maximir.files import reason
from maximir.training.recipe import Recipe
from maximir.training.run import Run
from maximir.training.samples import PhasedSamples, RunSampler, Sample, Views, collate

Indices = list[tuple[int, int, int]]
ADVICE = "with --workers 0 the samples are made between the steps"


class Batches(Dataset[Sample | str]):
    """Map a batch's indices to the batch, or to an error message: torch would wrap an exception."""

    def __init__(self, samples: PhasedSamples) -> None:
        self.samples = samples

    def __getitem__(self, indices: Indices) -> Sample | str:
        try:
            return collate([self.samples[index] for index in indices])
        except MaximirError as error:
            return str(error)
        except Exception as error:
            if torch.utils.data.get_worker_info() is None:
                raise
            why = " ".join(str(error).split())
            return f"a loader process failed ({type(error).__name__}: {why}); {ADVICE}"


def unchanged(batch: Any) -> Any:
    return batch


def send_by_value(worker: int) -> None:
    """Make this loader process pickle tensors by value instead of putting them into shared memory."""
    ForkingPickler.register(Tensor, reduce_tensor)


def reduce_tensor(tensor: Tensor) -> tuple[Any, ...]:
    return torch.from_numpy, (tensor.numpy(),)


def load_batches(recipe: Recipe, sources: Mapping[str, Views], run: Run) -> Iterator[Sample]:
    """Yield the batches from the run's current step to its end.

    On systems that fork, loader processes share the decoded images. Each has one torch thread, so none
    waits for OpenMP's threads, which do not survive a fork.

    Raises:
        MaximirError: a batch cannot be made, or a loader process cannot start or ends early.
    """
    processes, workers = run.processes, run.execution.workers
    loader = DataLoader(
        Batches(PhasedSamples(recipe, sources)),
        batch_size=None,  # the sampler yields whole batches
        sampler=RunSampler(run.step, recipe.steps, recipe.batch_of, processes.rank, processes.count),
        collate_fn=unchanged,
        num_workers=workers,
        pin_memory=run.device.type == "cuda",
        worker_init_fn=send_by_value,
        generator=torch.Generator("cpu"),  # the loader draws a number, and the program's are its own
    )
    try:
        batches = iter(loader)
    except OSError as error:  # /dev/shm is full, or the process limit is reached
        raise MaximirError(f"loader processes cannot be started ({reason(error)}); {ADVICE}") from error
    while True:
        try:
            batch = next(batches, None)
        except RuntimeError as error:  # a loader process has ended
            if workers == 0:
                raise
            why = (str(error).splitlines() or ["it ended early"])[0]
            raise MaximirError(
                f"a loader process failed ({why}); fewer --workers need less memory, and {ADVICE}"
            ) from error
        if batch is None:
            return
        if isinstance(batch, str):
            raise MaximirError(batch)
        yield batch
