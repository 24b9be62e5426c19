"""The processes of a run: a single one, or several started by torchrun, which use DDP or FSDP2.

Each step's batch is divided among the processes, and their gradients are averaged. The loss curve does not
depend on the number of processes, except for rounding; a run can be resumed with another number.
"""

from __future__ import annotations

import contextlib
import os
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
    """This process and its place among the processes of the run.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """True for the process that writes files and reports progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.count > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over all processes."""
        if self.count > 1:
            value = value / self.count
            dist.all_reduce(value)
        return value

    def total(self, count: int) -> int:
        """Return the sum of `count` over all processes."""
        if self.count == 1:
            return count
        shared = torch.tensor([count], dtype=torch.int64, device=self.device)
        dist.all_reduce(shared)
        return int(shared.item())

    def agree(self, value: int) -> int:
        """Return the first process's value in every process."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(shared, src=0)
        return int(shared.item())


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """Yield this process: alone, or in torchrun's or Ray Train's group (gloo on CPUs, NCCL on GPUs)."""
    if "WORLD_SIZE" not in os.environ:
        yield Processes(choose_device(device))
        return
    if device == "auto" and torch.cuda.is_available():
        device = "cuda"  # if one process fell back to the CPU, the others would wait for it
    place = choose_device(f"cuda:{os.environ['LOCAL_RANK']}" if device.startswith("cuda") else device)
    on_gpu = place.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(place)
    ours = not dist.is_initialized()  # Ray Train makes its process group before it calls us
    if ours:
        # A long timeout, because the first process validates alone.
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", timeout=LONGEST_WAIT, device_id=place if on_gpu else None
        )
    yield Processes(place, dist.get_rank(), dist.get_world_size())
    if ours:
        dist.destroy_process_group()  # not after an error: it would wait for processes that torchrun ends


def spread(model: Maxim, processes: Processes, *, shard: bool) -> nn.Module:
    """Return the module to call in training: the network, or a wrapper that averages gradients.

    Args:
        shard: use FSDP2, where each process keeps a part of the weights, gradients and moments, stage by
            stage. Otherwise use DDP, where each process keeps all of them.
    """
    if processes.count == 1:
        return model
    if not shard:
        return DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for stage in model.stages:
        fully_shard(stage)
    fully_shard(model)
    return model


@contextlib.contextmanager
def accumulating(network: nn.Module, last: bool) -> Iterator[None]:
    """Accumulate gradients over parts of a batch; processes exchange them at the last part only."""
    inner = getattr(network, "_orig_mod", network)  # the module that torch.compile wrapped
    if isinstance(inner, DistributedDataParallel) and not last:
        with inner.no_sync():
            yield
    else:
        if hasattr(inner, "set_requires_gradient_sync"):
            inner.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole, also if each process has a part of it; all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_parts(value: Tensor, like: Tensor) -> Tensor:
    """Distribute a whole tensor among the processes as `like` is distributed."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value
