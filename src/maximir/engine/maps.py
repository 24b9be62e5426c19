"""Where feature maps live: in memory, and beyond a limit in memory-mapped scratch files."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maximir.errors import MaximirError
from maximir.files import reason

# Memory of this process alone. (Where there is no such flag, on Windows, it is so anyway.)
PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

ZEROS = bytes(1 << 20)


class MapStore:
    """Makes feature maps, and counts them.

    Within `reuse`, the memory of a map that is gone serves the next one of its size: fresh pages cost more
    time than most sweeps. It goes back to the system before it would raise the peak.

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
        self.live = self.in_memory = 0
        self.peak = self.memory_peak = self.scratch_peak = 0
        self._spare: list[mmap.mmap] = []
        self._reusing = False
        self._files: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def new(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised map.

        Raises:
            MaximirError: the scratch folder is full or cannot be written to.
        """
        size = math.prod(shape) * dtype.itemsize
        if device.type != "cpu":
            x = torch.empty(*shape, dtype=dtype, device=device)
            self._count(size, False)
            weakref.finalize(x, self._count, -size, False).atexit = False
            return x
        on_disk = self.memory is not None and self.in_memory + size > self.memory
        buffer = self._scratch_file(size) if on_disk else self._memory(size)
        self._count(size, on_disk)
        view = np.frombuffer(buffer, np.uint8)  # lives as long as any tensor that shares the map's storage
        weakref.finalize(view, self._take_back, buffer, on_disk).atexit = False
        return torch.from_numpy(view).view(dtype).view(*shape)

    @contextlib.contextmanager
    def reuse(self) -> Iterator[None]:
        """For one pass over an image: afterwards no memory waits to be used again."""
        self._reusing = True
        try:
            yield
        finally:
            self._reusing = False
            self._spare.clear()

    def strip_done(self) -> None:
        """Hand the pages of scratch files back to the system, which writes them out when it needs to."""
        for file in self._files if hasattr(mmap, "MADV_DONTNEED") else ():
            file.madvise(mmap.MADV_DONTNEED)

    def _count(self, size: int, on_disk: bool) -> None:
        self.live += size
        self.in_memory += 0 if on_disk else size
        self.peak = max(self.peak, self.live)
        self.memory_peak = max(self.memory_peak, self.in_memory)
        self.scratch_peak = max(self.scratch_peak, self.live - self.in_memory)

    def _take_back(self, buffer: mmap.mmap, on_disk: bool) -> None:
        self._count(-len(buffer), on_disk)
        if self._reusing and not on_disk:
            self._spare.append(buffer)

    def _memory(self, size: int) -> mmap.mmap:
        for buffer in self._spare:
            if len(buffer) == size:
                self._spare.remove(buffer)
                return buffer
        room = self.memory_peak - self.in_memory - size
        while self._spare and sum(map(len, self._spare)) > room:
            self._spare.pop(0)
        try:
            return mmap.mmap(-1, size, **PRIVATE)
        except OSError as error:
            raise MemoryError from error

    def _scratch_file(self, size: int) -> mmap.mmap:
        try:
            with tempfile.TemporaryFile(dir=self.scratch) as file:  # has no name: it cannot be left behind
                if hasattr(os, "posix_fallocate"):  # a full disk is noticed here, not in a sweep
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    for start in range(0, size, len(ZEROS)):
                        file.write(ZEROS[: size - start])
                    file.flush()
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            where = self.scratch or tempfile.gettempdir()
            raise MaximirError(
                f"{where}: no scratch space for {size / 1e9:.1f} GB ({reason(error)}); "
                "choose another scratch folder or allow more memory"
            ) from error
        self._files.add(mapped)
        return mapped
