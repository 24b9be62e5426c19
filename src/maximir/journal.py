"""What was done in a folder of results, so that a run that was stopped goes on where it was.

Each result is entered just before it appears under its name: its own digest, its source's and that of the
settings. It is done if its file, its source and the settings still have these digests: names and times count
for nothing, and a file that somebody else put there, or changed, is never taken for ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from maximir.errors import MaximirError, UsageError
from maximir.files import PART, JsonLines, file_digest, line_of, reason, write_atomically

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not told apart
    fcntl = None  # type: ignore[assignment]

NAME = ".maximir.jsonl"


@dataclass(frozen=True)
class Entry:
    """One result.

    Attributes:
        target: its path below the folder, with "/".
        source: SHA-256 of the file that it came from.
        settings: what decides the pixels: `settings_digest`.
        result: SHA-256 of the result.
        height, width: of the result.
    """

    target: str
    source: str
    settings: str
    result: str
    height: int
    width: int


class Journal:
    """The entries of a folder, the newest of each target; open as long as the run takes.

    Args:
        resume: go on where an earlier run was stopped, and remove what it left half-written. Otherwise the
            old entries count for nothing.

    Raises:
        UsageError: to resume, while another run writes there.
        MaximirError: the journal cannot be read or written.
    """

    def __init__(self, folder: Path, settings: str, *, resume: bool = False) -> None:
        self.folder, self.settings, self.resume = folder, settings, resume
        self.path = folder / NAME
        try:
            self.lines = JsonLines(self.path)
            while not self._lock(alone=resume):  # its end was just brought in order: there is a new file
                self.lines.close()
                self.lines = JsonLines(self.path)
            self.entries = self._read() if resume else {}
        except BlockingIOError as error:
            self.lines.close()
            raise UsageError(f"{folder}: another maximir writes there; wait for it") from error
        except OSError as error:
            raise MaximirError(f"{self.path}: cannot be read or written ({reason(error)})") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with contextlib.suppress(
                OSError
            ):  # in use by another run, or the disk is full: it is good as it is
                self._tidy()
        self.lines.close()

    def ours(self, target: Path) -> Entry | None:
        """The entry of a result that is still there, unchanged."""
        entry = self.entries.get(self._name(target))
        with contextlib.suppress(OSError):
            if entry is not None and entry.result == file_digest(target):
                return entry
        return None

    def is_done(self, entry: Entry, source: Path) -> bool:
        """Whether this would come of `source` again."""
        try:
            return entry.settings == self.settings and entry.source == file_digest(source)
        except OSError:
            return False  # said when it is read

    def add(self, target: Path, source: str, result: str, height: int, width: int) -> None:
        """Enter a result that is about to appear; it is on disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        entry = Entry(self._name(target), source, self.settings, result, height, width)
        self.lines.add(asdict(entry), sync=True)

    def _lock(self, *, alone: bool) -> bool:
        """Take the file, alone or with others; whether it is still the one of this name.

        Raises:
            BlockingIOError: others have it.
        """
        if fcntl is None:
            return True
        try:
            fcntl.flock(self.lines.file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # some network drives have no locks
            return True
        return self.path.exists() and os.path.samestat(os.fstat(self.lines.file.fileno()), self.path.stat())

    def _read(self) -> dict[str, Entry]:
        """The newest entry of each target."""
        entries = {}
        for values in self.lines.read():
            with contextlib.suppress(TypeError):  # not of ours
                entry = Entry(**values)
                entries[entry.target] = entry
        return entries

    def _tidy(self) -> None:
        """One line a result, by name: the same file, whether the run was killed in between or not.

        Raises:
            OSError: another run writes there, or it cannot be written.
        """
        self._lock(alone=True)
        kept = (entry for _, entry in sorted(self._read().items()) if (self.folder / entry.target).exists())
        write_atomically(self.path, b"".join(line_of(asdict(entry)) for entry in kept))

    def _name(self, target: Path) -> str:
        return os.path.relpath(target, self.folder).replace(os.sep, "/")


def settings_digest(**settings: object) -> str:
    """One name for all that decides a result's pixels."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def remove_parts(folders: Iterable[Path]) -> None:
    """Remove what a run that was killed left half-written; only while no other run writes there."""
    for folder in folders:
        for part in folder.glob(f"{PART}*"):
            with contextlib.suppress(OSError):
                part.unlink()
