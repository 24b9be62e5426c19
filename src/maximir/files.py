"""Atomic files, files that grow by whole lines, and names that stay on one line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from maximir.errors import MaximirError, TooLarge

STREAM = "-"  # standard input or output, in place of a path
PART = ".maximir-"  # prefix of incomplete files
SYSTEM_FOLDERS = {  # of Synology, QNAP, Windows, macOS archives, Linux
    "@eadir",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "recycler",
    "network trash folder",
    "temporary items",
    "__macosx",
    "lost+found",
}
SYSTEM_FOLDER_SUFFIXES = (".lrdata", ".lrcat-data", ".cocatalogdb")  # previews of raw programs
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
FIRST_LINE = 1 << 20  # bytes: more than any command has
GIT_LFS = b"version https://git-lfs.github.com/spec/"  # start of the files that a clone without git-lfs has


def write_atomically(path: Path, data: bytes, *, like: Path | None = None) -> None:
    """Write beside, sync, rename: an older file at `path` is replaced at once, or stays unchanged.

    Args:
        like: a file whose owner, permissions and extended attributes it gets, where the system permits it.

    Raises:
        OSError: the folder is missing or cannot be written to, or the disk is full. Nothing is left behind.
    """
    part = path.with_name(part_name(path.suffix))
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            if like is not None:
                facts = like.stat()
                if os.name == "posix":
                    with contextlib.suppress(OSError):  # only root may give files away
                        os.chown(part, facts.st_uid, facts.st_gid)
                with contextlib.suppress(OSError):
                    shutil.copystat(like, part)
                    os.utime(part)  # it is a new file
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException:  # includes Ctrl-C: clean up and re-raise
        part.unlink(missing_ok=True)
        raise


def part_name(suffix: str) -> str:
    """Return a new short name for an incomplete file; it keeps the suffix unless that is long."""
    return f"{PART}{secrets.token_hex(6)}{suffix if len(suffix) < 10 else ''}"


def read_file(path: Path, limit: int | None = None, begin: int = 0, end: int | None = None) -> bytes:
    """Read a regular file, or its bytes from `begin` to `end`.

    It is not mapped: a mapped file that shrinks kills the process.

    Raises:
        OSError: it cannot be read.
        MaximirError: it is not a regular file, or has more bytes than `limit`. The message has no path.
    """
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise MaximirError("is a folder, not a file")
        if not stat.S_ISREG(info.st_mode):  # a pipe would block forever
            raise MaximirError("is not a regular file")
        check_file_size(info.st_size, limit)
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(-1 if end is None else max(0, end - begin))
    except MemoryError as error:
        raise TooLarge("not enough memory to read the file") from error
    except ValueError as error:  # such as a zero byte in its name
        raise MaximirError(f"the file cannot be read ({error})") from error


def refuse_pointer(start: bytes) -> None:
    """Raise MaximirError if a file with this start is a Git LFS pointer, without naming the path."""
    if start.startswith(GIT_LFS):
        raise MaximirError("is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository")


def check_file_size(size: int, limit: int | None) -> None:
    """Raise TooLarge for more bytes than `limit`."""
    if limit is not None and size > limit:
        raise TooLarge(f"the file has {size:,} bytes; the limit is {limit:,}")


class JsonLines:
    """A file that grows by lines of JSON. Readers of this class see each line whole or not at all.

    Raises:
        OSError: it cannot be opened for reading and writing.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("a+b", buffering=0)  # a buffer would retry a failed write on closing
        self.lock = threading.Lock()

    def read(self) -> Iterator[Any]:
        """Yield the values of all complete lines; skip truncated ones, e.g. after a power failure."""
        self.file.seek(0)
        for line in self.file.read().split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                yield json.loads(line)

    def begins_with(self, key: str) -> bool:
        """Return True if the file is empty, or its first line is an object with this key."""
        self.file.seek(0)
        start = self.file.read(FIRST_LINE)
        with contextlib.suppress(ValueError, RecursionError):
            first = json.loads(start.partition(b"\n")[0])
            return isinstance(first, dict) and key in first
        return not start

    def add(self, value: object, *, sync: bool = False) -> None:
        """Write a line; with `sync` it is on disk on return.

        Raises:
            OSError: it cannot be written.
        """
        with self.lock:
            line = b"\n" * self._is_torn() + line_of(value)
            if self.file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()

    def _is_torn(self) -> bool:
        """Return True if the last line is not complete; in a pipe it is."""
        if not self.file.seekable():
            return False
        end = self.file.seek(0, os.SEEK_END)
        self.file.seek(max(0, end - 1))
        return self.file.read(1) not in (b"", b"\n")


def line_of(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power failure, where the file system can do that.

    Some network and FUSE drives cannot sync folders, Windows cannot open them, and one may write to a
    folder without reading it.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def walk(
    folder: Path, refuse: Callable[[OSError], None], leave_out: str = ""
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk like `os.walk`, also through links to folders, without loops; skip hidden and system folders.

    Yields each folder, the names of links in it that lead back to a folder on the way there or to a parent
    of one, and the names of its files; all sorted.

    Args:
        refuse: called for folders that cannot be read.
        leave_out: real path of a folder to skip.
    """
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(root)
        folders[:] = sorted(name for name in folders if not (name.startswith(".") or is_system_folder(name)))
        loops = [name for name in folders if os.path.islink(here / name) and leads_back(here / name, folder)]
        folders[:] = [
            name
            for name in folders
            if name not in loops and (not leave_out or os.path.realpath(here / name) != leave_out)
        ]
        yield here, loops, sorted(names)


def leads_back(link: Path, top: Path) -> bool:
    """Return True if a link's target holds a folder on the way from `top` to the link, or is one."""
    target = os.path.join(os.path.realpath(link), "")
    depth = len(link.relative_to(top).parts)
    return any(f"{os.path.realpath(parent)}{os.sep}".startswith(target) for parent in link.parents[:depth])


def is_system_folder(name: str) -> bool:
    return name.lower() in SYSTEM_FOLDERS or name.lower().endswith(SYSTEM_FOLDER_SUFFIXES)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256sum` does; for a folder, over names and digests of its files.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        names = [f"{file.relative_to(path).as_posix()} {file_digest(file)}\n" for file in inside]
        return hashlib.sha256("".join(names).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: OSError) -> str:
    """Return the system's message in lower case: "no space left on device"."""
    return (error.strerror or str(error)).lower()


def disk_is_full(error: BaseException | None) -> bool:
    """Return True if the error says that a disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def comparable(names: Iterable[str]) -> dict[str, str]:
    """Map each name to its composed form (NFC): Macs write "é" as two characters where others write one.

    A name stays as it is if others among `names` have the same composed form.
    """
    forms = {name: unicodedata.normalize("NFC", name) for name in names}
    counts = Counter(forms.values())
    return {name: form if counts[form] == 1 else name for name, form in forms.items()}


def printable(text: object) -> str:
    """Escape line breaks, control codes and the like, so that the text is one harmless line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
