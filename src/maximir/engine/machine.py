"""Resources of this machine: free memory, also within a container, and folders for scratch files."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from maximir.errors import MaximirError
from maximir.files import reason
from maximir.sizes import in_words

ON_DISK = Path("/var/tmp")  # by the conventions of Unix
CGROUPS = Path("/sys/fs/cgroup")


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
    """Bytes that this process can still take: of the machine, or of its container."""
    free = psutil.virtual_memory().available
    for group, limit, used, caches in control_groups():
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            taken = int((group / used).read_text()) - sum(int(stat.get(cache, 0)) for cache in caches)
            free = min(free, int((group / limit).read_text()) - taken)
    return max(0, free)


def control_groups() -> Iterator[tuple[Path, str, str, tuple[str, ...]]]:
    """Folders of the process's control groups (Linux): limit, use, and what of that is only cache."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                group, names = CGROUPS, ("memory.max", "memory.current", ("inactive_file", "active_file"))
            elif "memory" in controllers.split(","):
                group = CGROUPS / "memory"
                names = (
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    ("total_inactive_file", "total_active_file"),
                )
            else:
                continue
            for place in {group, group / path.lstrip("/")}:
                yield place, *names
