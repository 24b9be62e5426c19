"""Storage of feature maps: in memory, and beyond a limit in memory-mapped scratch files."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from maximir.errors import MaximirError
from maximir.files import reason

# Memory of this process alone. (Where there is no such flag, on Windows, it is so anyway.)
PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
# Whether a map can begin in memory and end in a file. Elsewhere it is in one of them as a whole.
DIVIDED = sys.platform == "linux" and sys.maxsize > 2**32
MAP_FIXED = 0x10  # of Linux; Python's mmap has no name for it
PIECE = 1 << 20  # written at a time


@dataclass(eq=False)
class Place:
    """The storage of one map.

    Attributes:
        buffer: all of it, in one range of addresses.
        resident: bytes in memory; the others, which follow, are in `file`.
        rests: the map is not needed for a while, see `MapStore.rest`.
    """

    buffer: mmap.mmap
    resident: int
    file: IO[bytes] | None = None
    rests: bool = False


class MapStore:
    """Make feature maps, and count them.

    Within `reuse`, the memory of a map that is gone serves the next one of its size: fresh pages cost more
    time than most sweeps. It goes back to the system before it would raise the peak.

    When memory ends, maps that rest go to scratch files, those that rest longest first; and of a new map what
    has no room. Sweeps go through whole maps: a part that stays is worth more than the latest rows.

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
        self._places: dict[int, Place] = {}  # by address; those that rest longest first

    def new(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an uninitialised map.

        Raises:
            MaximirError: the scratch folder is full or cannot be written to.
        """
        size = math.prod(shape) * dtype.itemsize
        if device.type != "cpu":
            x = torch.empty(*shape, dtype=dtype, device=device)
            self._count(size, size)
            weakref.finalize(x, self._count, -size, -size).atexit = False
            return x
        resident = self._room_for(size)
        place = Place(self._memory(size), size) if resident == size else self._scratch(size, resident)
        self._count(size, place.resident)
        # Lives as long as any tensor that shares the map's storage.
        view = np.frombuffer(place.buffer, np.uint8)
        self._places[view.ctypes.data] = place
        weakref.finalize(view, self._take_back, view.ctypes.data).atexit = False
        return torch.from_numpy(view).view(dtype).view(*shape)

    def rest(self, x: Tensor) -> None:
        """Mark a map that waits: it goes to a scratch file when others need its memory."""
        address = x.untyped_storage().data_ptr()
        if self.memory is not None and (place := self._places.pop(address, None)):
            place.rests = True
            self._places[address] = place

    @contextlib.contextmanager
    def reuse(self) -> Iterator[None]:
        """Reuse the memory of maps during one pass over an image; release it afterwards."""
        self._reusing = True
        try:
            yield
        finally:
            self._reusing = False
            self._spare.clear()

    def strip_done(self) -> None:
        """Hand the pages of scratch files back to the system, which writes them out when it needs to."""
        if self.memory is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        for place in self._places.values():
            if place.file:
                place.buffer.madvise(mmap.MADV_DONTNEED, place.resident)

    def _count(self, size: int, resident: int) -> None:
        self.live += size
        self.in_memory += resident
        self.peak = max(self.peak, self.live)
        self.memory_peak = max(self.memory_peak, self.in_memory)
        self.scratch_peak = max(self.scratch_peak, self.live - self.in_memory)

    def _take_back(self, address: int) -> None:
        place = self._places.pop(address)
        self._count(-len(place.buffer), -place.resident)
        if place.file:
            place.file.close()
        elif self._reusing:
            self._spare.append(place.buffer)

    def _room_for(self, size: int) -> int:
        """Return the bytes of a new map that go into memory: all, or as many pages as there is room for."""
        if self.memory is None:
            return size
        for place in list(self._places.values()):
            if self.in_memory + size <= self.memory:
                break
            if DIVIDED and place.rests and place.resident:
                self._evict(place)
        room = self.memory - self.in_memory
        return size if size <= room else max(0, room) // mmap.PAGESIZE * mmap.PAGESIZE if DIVIDED else 0

    def _memory(self, size: int) -> mmap.mmap:
        for buffer in self._spare:
            if len(buffer) == size:
                self._spare.remove(buffer)
                return buffer
        self._forget_spare(self.memory_peak - self.in_memory - size)
        return anonymous(size)

    def _forget_spare(self, room: int) -> None:
        while self._spare and sum(map(len, self._spare)) > room:
            self._spare.pop(0)

    def _scratch(self, size: int, resident: int) -> Place:
        """Make a map that ends in a file."""
        with self._explained(size - resident):
            file = scratch_file(self.scratch, resident, size)
            if not DIVIDED:
                return Place(mmap.mmap(file.fileno(), size), 0, file)
        assert self.memory is not None
        self._forget_spare(self.memory - self.in_memory - resident)
        place = Place(anonymous(size), resident, file)
        map_file(place, resident, size)
        return place

    def _evict(self, place: Place) -> None:
        """Move the part in memory to the file."""
        with self._explained(place.resident):
            if place.file is None:
                place.file = scratch_file(self.scratch, 0, place.resident)
            else:
                allocate(place.file, 0, place.resident)
            with memoryview(place.buffer) as content:
                for start in range(0, place.resident, PIECE):
                    os.pwrite(place.file.fileno(), content[start : min(start + PIECE, place.resident)], start)
        map_file(place, 0, place.resident)
        self._count(0, -place.resident)
        place.resident = 0

    @contextlib.contextmanager
    def _explained(self, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self.scratch or tempfile.gettempdir()
            raise MaximirError(
                f"{where}: no scratch space for {size / 1e9:.1f} GB ({reason(error)}); "
                "choose another scratch folder or allow more memory"
            ) from error


def anonymous(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size, **PRIVATE)
    except OSError as error:
        raise MemoryError from error


def scratch_file(folder: Path | None, start: int, stop: int) -> IO[bytes]:
    """Make a file without a name, which cannot be left behind, with room on the disk for these bytes."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 # the map keeps it
    try:
        allocate(file, start, stop)
    except OSError:
        file.close()
        raise
    return file


def allocate(file: IO[bytes], start: int, stop: int) -> None:
    """Reserve room on the disk for these bytes of a file: a full disk is noticed here, not in a sweep."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), start, stop - start)
        return
    file.seek(start)
    for begin in range(start, stop, PIECE):
        file.write(bytes(min(PIECE, stop - begin)))
    file.flush()


@functools.cache
def system_mmap() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_int64]
    return function


def map_file(place: Place, start: int, stop: int) -> None:
    """Map these bytes of the file, from the start of a page, over the memory of the map.

    They belong to the buffer as before: unmapping it unmaps them.
    """
    assert place.file is not None
    address = np.frombuffer(place.buffer, np.uint8).ctypes.data + start
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED
    if system_mmap()(address, stop - start, protection, flags, place.file.fileno(), start) != address:
        raise MemoryError
