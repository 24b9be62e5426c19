"""Memory that an image takes, estimated before it is restored, and the streaming that fits a budget.

The estimate comes from the network itself: one pass over the smallest image on the meta device, which
allocates nothing. Every feature map is proportional to the pixels, and so is the work of every sweep.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from maximir.engine import network as engine
from maximir.engine.machine import available, resident, scratch_folder
from maximir.engine.maps import MapStore
from maximir.engine.sweeps import STRIP_BYTES, UNIT, Streaming
from maximir.errors import NotEnoughMemory
from maximir.network.config import MaximConfig
from maximir.network.model import Maxim
from maximir.restoring.options import Progress
from maximir.restoring.padding import padded_size
from maximir.sizes import in_words

SMALLEST_STRIP = 1 << 18  # shorter strips save nothing that shows
STRIPS_AT_ONCE = 12  # strips that a sweep's function and the libraries below hold
IMAGE_BYTES = 16  # of the padded image, for each pixel, with its smaller scales
AMPLE_MAPS = 16  # maps of full size: more than any network holds, images and strips included
SMALL_PIXELS = 1 << 19  # such an image is done before its progress matters
OVERHEAD = 60 << 20  # bytes: threads, allocators, oneDNN's kernels
GPU_STRIPS = 16  # times as long as on a processor; not measured yet
UNFILLED = 0.15  # of all maps, that scratch files hold besides what has no room: measured, 9 to 13%
SHARE = 0.8  # of the free memory that a pass takes when no budget is given


class Needs(NamedTuple):
    """Demand of a pass for each padded pixel."""

    map_bytes: float
    flops: tuple[float, ...]  # of each sweep, in order


class Plan(NamedTuple):
    """The way of an image through the network, and the bytes that it takes.

    Attributes:
        streaming: the strips and where maps live.
        peak: memory of the process at most.
        scratch: in scratch files at most.
        least: the smallest budget that works.
    """

    streaming: Streaming
    peak: int
    scratch: int
    least: int


@functools.cache
def needs(config: MaximConfig, features: torch.dtype) -> Needs:
    """Measure what networks of this shape take for each pixel, with feature maps of this type."""
    with torch.device("meta"):
        model = Maxim(config).float().eval()  # whatever the caller's default dtype is
        side = config.size_multiple
        image = torch.empty(1, 3, side, side, dtype=torch.float32)
    pixels = side**2
    flops: list[float] = []
    counter = FlopCounterMode(display=False)
    dry = Streaming(features=features, strip_done=lambda strips: flops.append(counter.get_total_flops()))
    with counter:
        engine.run(model, image, dry)
    each = [after - before for before, after in itertools.pairwise([0.0, *flops])]
    return Needs(dry.store.peak / pixels, tuple(flop / pixels for flop in each))


def fixed(config: MaximConfig, shape: tuple[int, int, int], more: int, strip_bytes: int) -> int:
    """Return the bytes that a pass holds besides feature maps: the process as it is, images, and a strip."""
    smallest = UNIT * shape[0] * padded_size(shape[2], config.size_multiple) * config.features * 4
    images = IMAGE_BYTES * padded_pixels(shape, config)
    return resident() + OVERHEAD + more + images + STRIPS_AT_ONCE * max(strip_bytes, smallest)


def plan(
    config: MaximConfig,
    shape: tuple[int, int, int],
    features: torch.dtype,
    *,
    device: torch.device,
    max_memory: int | None = None,
    scratch: Path | None = None,
    more: int = 0,
) -> Plan:
    """Plan a pass that keeps the process within `max_memory`: shorter strips, then maps in scratch files.

    Args:
        shape: images in the batch, height, width; before padding.
        features: type of the feature maps that wait.
        device: where the network runs. Maps of a GPU stay there, and only count.
        max_memory: bytes; None: most of what the machine has free.
        scratch: folder for scratch files; None: the system's.
        more: bytes that the caller will need besides.

    Raises:
        MaximirError: even that needs more, or the scratch folder has not enough room; says how much.
    """
    if device.type != "cpu":
        return plan_on_gpu(config, shape, features, device, max_memory)
    maps = round(needs(config, features).map_bytes * padded_pixels(shape, config))
    limit = budget(max_memory)
    least = fixed(config, shape, more, SMALLEST_STRIP)
    for strip_bytes in (STRIP_BYTES, SMALLEST_STRIP):
        besides = fixed(config, shape, more, strip_bytes)
        room = limit - besides
        if room >= maps:
            return Plan(Streaming(strip_bytes, features), besides + maps, 0, least)
        if room > maps / 4 or (strip_bytes == SMALLEST_STRIP and room >= 0):
            # Room that no map fits into stays empty.
            on_disk = min(maps, round(maps * (1 + UNFILLED) - room))
            store = MapStore(room, scratch_folder(scratch, on_disk))
            return Plan(Streaming(strip_bytes, features, store), limit, on_disk, least)
    source = "the memory budget is" if max_memory is not None else "this machine has room for"
    raise NotEnoughMemory(
        *shape[1:], f"need at least {in_words(least)} with this model, but {source} {in_words(limit)}"
    )


def plan_on_gpu(
    config: MaximConfig,
    shape: tuple[int, int, int],
    features: torch.dtype,
    device: torch.device,
    max_memory: int | None,
) -> Plan:
    """Plan a pass on a GPU: long strips keep it busy, and what it cannot hold is refused before."""
    peak = gpu_bytes(config, shape, features)
    if max_memory is None:  # what torch holds and does not use counts as free
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        max_memory = torch.cuda.mem_get_info(device)[0] + unused
    if peak > max_memory:
        raise NotEnoughMemory(
            *shape[1:],
            f"need {in_words(peak)} on the GPU with this model, but there are {in_words(max_memory)}; "
            "use --device cpu, which needs less",
        )
    return Plan(Streaming(GPU_STRIPS * STRIP_BYTES, features), peak, 0, peak)


def gpu_bytes(config: MaximConfig, shape: tuple[int, int, int], features: torch.dtype) -> int:
    """Return the bytes of a GPU that a pass takes."""
    maps = round(needs(config, features).map_bytes * padded_pixels(shape, config))
    return fixed(config, shape, -resident(), GPU_STRIPS * STRIP_BYTES) + maps


def padded_pixels(shape: tuple[int, int, int], config: MaximConfig) -> int:
    """Return the padded pixels of a batch: images, height, width."""
    height, width = (padded_size(length, config.size_multiple) for length in shape[1:])
    return shape[0] * height * width


def budget(max_memory: int | None) -> int:
    """Return the bytes that the process may hold: those asked for, or most of those that are free."""
    return max_memory if max_memory is not None else resident() + int(SHARE * available())


def is_small(config: MaximConfig, shape: tuple[int, int, int], max_memory: int | None) -> bool:
    """Return True if an image surely fits and is soon done: it needs no plan, which takes a second."""
    pixels = padded_pixels(shape, config)
    ample = resident() + OVERHEAD + AMPLE_MAPS * 4 * config.features * pixels
    return pixels <= SMALL_PIXELS and ample < budget(max_memory)


class Shares:
    """Progress of a pass: each sweep counts by its floating-point operations.

    Call it after each strip, as `Streaming.strip_done`; it calls `report` with the part that is done.
    """

    def __init__(self, config: MaximConfig, features: torch.dtype, report: Progress) -> None:
        self.flops, self.report = needs(config, features).flops, report
        self.total = sum(self.flops)
        self.sweep, self.strip, self.done = 0, 0, 0.0

    def __call__(self, strips: int) -> None:
        self.strip += 1
        current = self.flops[self.sweep]
        self.report((self.done + current * self.strip / strips) / self.total)
        if self.strip == strips:
            self.sweep, self.strip, self.done = self.sweep + 1, 0, self.done + current
