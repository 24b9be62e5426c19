"""Resources of this machine: free memory, also within a container, and folders for scratch files."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil

from maximir.errors import MaximirError
from maximir.files import reason
from maximir.sizes import in_words

ON_DISK = Path("/var/tmp")  # by the conventions of Unix
CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def scratch_folder(chosen: Path | None, size: int = 0) -> Path:
    """Return the folder for scratch files: `chosen`, or the system's, if that is on a disk.

    Raises:
        MaximirError: it is missing, not writable, in memory itself, or has no room for `size` bytes.
    """
    folder = chosen or Path(tempfile.gettempdir())
    if chosen is None and in_memory(folder) and ON_DISK.is_dir():
        folder = ON_DISK
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise MaximirError(f"{folder}: no scratch files can be made there ({reason(error)})") from error
    if in_memory(folder):
        raise MaximirError(f"{folder}: is in memory, not on a disk; choose another scratch folder")
    if free < size:
        raise MaximirError(
            f"{folder}: scratch files need {in_words(size)}, but only {in_words(free)} are free; "
            "choose another scratch folder or allow more memory"
        )
    return folder


def in_memory(folder: Path) -> bool:
    """Return True if files there are in memory (tmpfs), as in some systems' /tmp."""
    place = folder.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if place.is_relative_to(m.mountpoint)]
    return bool(mounts) and max(mounts, key=lambda m: len(m.mountpoint)).fstype in ("tmpfs", "ramfs")


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return psutil.Process().memory_info().rss


def available() -> int:
    """Return the bytes that this process can still take: of the machine, or of its fullest group."""
    return max(0, min([psutil.virtual_memory().available, *map(room, control_groups())]))


class ControlGroup(NamedTuple):
    """A control group of Linux.

    Attributes:
        folder: of its files.
        limits: names of files with a limit in bytes. Above memory.high the kernel slows a process down.
        used: name of the file with the bytes in use.
        caches: entries of memory.stat for the part of these that is only cache.
    """

    folder: Path
    limits: tuple[str, ...]
    used: str
    caches: tuple[str, ...]


def room(group: ControlGroup) -> float:
    """Return the bytes left in a group; infinity if it has no limit."""
    least = math.inf
    with contextlib.suppress(OSError, ValueError):  # the root group has no such files
        stat = dict(line.split() for line in read(group.folder / "memory.stat").splitlines())
        used = int(read(group.folder / group.used)) - sum(int(stat.get(cache, 0)) for cache in group.caches)
        for limit in group.limits:
            with contextlib.suppress(OSError, ValueError):  # missing, or "max"
                least = min(least, int(read(group.folder / limit)) - used)
    return least


def control_groups() -> Iterator[ControlGroup]:
    """Yield the process's control groups (Linux) and those above them: each one's limit applies."""
    files: tuple[tuple[str, ...], str, tuple[str, ...]]
    with contextlib.suppress(OSError):
        for line in read(OWN_GROUPS).splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                root = CGROUPS
                files = (("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file"))
            elif "memory" in controllers.split(","):
                root = CGROUPS / "memory"
                files = (
                    ("memory.limit_in_bytes",),
                    "memory.usage_in_bytes",
                    ("total_inactive_file", "total_active_file"),
                )
            else:
                continue
            own = PurePosixPath(path.lstrip("/"))
            for part in (own, *own.parents):  # the last is the root
                if ".." not in part.parts:  # a group outside the container's view
                    yield ControlGroup(root / part, *files)


def read(path: Path) -> str:
    return path.read_text("utf-8")
