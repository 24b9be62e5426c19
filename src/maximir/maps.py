"""Where feature maps live: in memory, and beyond a limit in memory-mapped scratch files."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from maximir.errors import MaximirError
from maximir.files import reason


class MapStore:
    """Makes feature maps, and counts them.

    Args:
        memory: bytes of maps to keep in memory; None: all.
        scratch: folder for those that do not fit; None: the system's one for temporary files.

    Attributes:
        live, peak: bytes of maps in memory and on disk, now and at most.
        scratch_peak: of them at most on disk.
    """

    def __init__(self, memory: int | None = None, scratch: Path | None = None) -> None:
        self.memory = memory
        self.scratch = scratch
        self.live = self.peak = self.in_memory = self.scratch_peak = 0
        self._files: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def new(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised map.

        Raises:
            MaximirError: the scratch folder is full or cannot be written to.
        """
        size = math.prod(shape) * dtype.itemsize
        on_disk = self.memory is not None and self.in_memory + size > self.memory
        if on_disk and device.type == "cpu":
            x = self._mapped(size).view(dtype).view(*shape)
        else:
            x = torch.empty(*shape, dtype=dtype, device=device)
        self._count(size, on_disk)
        weakref.finalize(x, self._count, -size, on_disk)
        return x

    def strip_done(self) -> None:
        """Hand the pages of scratch files back to the system, which writes them out when it needs to."""
        for file in self._files:
            file.madvise(mmap.MADV_DONTNEED)

    def _count(self, size: int, on_disk: bool) -> None:
        self.live += size
        self.in_memory += 0 if on_disk else size
        self.peak = max(self.peak, self.live)
        self.scratch_peak = max(self.scratch_peak, self.live - self.in_memory)

    def _mapped(self, size: int) -> Tensor:
        try:
            with tempfile.TemporaryFile(dir=self.scratch) as file:  # has no name: it cannot be left behind
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is noticed here, not in a sweep
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            where = self.scratch or tempfile.gettempdir()
            raise MaximirError(
                f"{where}: no scratch space for {size / 1e9:.1f} GB ({reason(error)}); "
                "choose another scratch folder or allow more memory"
            ) from error
        self._files.add(mapped)
        return torch.frombuffer(mapped, dtype=torch.uint8)
