"""The processes of a run: one alone, or those that torchrun started, with DDP or FSDP2 between them.

A step's batch is shared out among them, and their gradients are averaged; so a run gives the same loss curve
(but for the order of sums) however many there are, and may go on with another number.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from maximir.network.model import Maxim
from maximir.restoring.restorer import choose_device

LONGEST_WAIT = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: its number, from 0.
        count: of all processes.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """The one that writes and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """Of a value that each process has its own of."""
        if self.count > 1:
            value = value / self.count
            dist.all_reduce(value)
        return value

    def total(self, count: int) -> int:
        """Of a number that each process has its own of."""
        if self.count == 1:
            return count
        shared = torch.tensor([count], dtype=torch.int64, device=self.device)
        dist.all_reduce(shared)
        return int(shared.item())

    def agree(self, value: int) -> int:
        """The first process's value, for all."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(shared, src=0)
        return int(shared.item())


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """Yield this process, alone or as one of torchrun's or Ray Train's: gloo on processors, NCCL on GPUs."""
    if "WORLD_SIZE" not in os.environ:
        yield Processes(choose_device(device))
        return
    if device == "auto" and torch.cuda.is_available():
        device = "cuda"  # no fallback in one process: the others would wait for it
    place = choose_device(f"cuda:{os.environ['LOCAL_RANK']}" if device.startswith("cuda") else device)
    on_gpu = place.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(place)
    ours = not dist.is_initialized()  # Ray Train has brought its processes together before it calls us
    if ours:
        # Long, since the first process validates alone.
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", timeout=LONGEST_WAIT, device_id=place if on_gpu else None
        )
    yield Processes(place, dist.get_rank(), dist.get_world_size())
    if ours:
        dist.destroy_process_group()  # not after an error: it would wait for the others, which torchrun ends


def spread(model: Maxim, processes: Processes, *, shard: bool) -> nn.Module:
    """What to call in training: the network itself, or wrapped so that gradients are averaged.

    Args:
        shard: FSDP2: each process keeps a part of weights, gradients and moments, stage by stage. Otherwise
            DDP: each keeps all.
    """
    if processes.count == 1:
        return model
    if not shard:
        return DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    # It fears that someone changes the outputs in place; nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for stage in model.stages:
        fully_shard(stage)
    fully_shard(model)
    return model


@contextlib.contextmanager
def accumulating(network: nn.Module, last: bool) -> Iterator[None]:
    """Gradients of parts of a batch: exchanged with the last part only."""
    inner = getattr(network, "_orig_mod", network)  # inside of what torch.compile made
    if isinstance(inner, DistributedDataParallel) and not last:
        with inner.no_sync():
            yield
    else:
        if hasattr(inner, "set_requires_gradient_sync"):
            inner.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may have a part only. All processes have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_parts(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, spread among the processes as `like` is."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value
