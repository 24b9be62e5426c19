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
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from maximir.errors import MaximirError, UsageError
from maximir.files import PART, JsonLines, file_digest, line_of, reason, sync_folder, write_atomically

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
    """The entries of a folder; open as long as the run takes.

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
            self._lock(alone=resume)
            while self.locked and not self._is_current():  # another run has just put it in order
                self.lines.close()
                self.lines = JsonLines(self.path)
                self._lock(alone=resume)
            sync_folder(folder)
            # By target and result: one that was to be replaced is still there if that failed.
            self.entries = self._read() if resume else {}
            self.targets = {name for name, _ in self.entries}
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
            with contextlib.suppress(OSError):  # it is in use, or the disk is full: it is good as it is
                self._tidy()
        self.lines.close()

    def ours(self, target: Path) -> Entry | None:
        """The entry of a result that is still there, unchanged."""
        name = self._name(target)
        with contextlib.suppress(OSError):
            if name in self.targets:
                return self.entries.get((name, file_digest(target)))
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

    def _lock(self, *, alone: bool) -> None:
        """Take the file, alone or with others, if there are locks.

        Raises:
            BlockingIOError: others have it.
        """
        self.locked = False
        if fcntl is not None:
            try:
                fcntl.flock(self.lines.file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                self.locked = True
            except BlockingIOError:
                raise
            except OSError:  # some network drives have none
                pass

    def _is_current(self) -> bool:
        """Whether the file is still the one of this name."""
        return self.path.exists() and os.path.samestat(os.fstat(self.lines.file.fileno()), self.path.stat())

    def _read(self) -> dict[tuple[str, str], Entry]:
        """The newest entry of each target and result."""
        entries = {}
        for values in self.lines.read():
            with contextlib.suppress(TypeError):  # not of ours
                entry = Entry(**values)
                entries[entry.target, entry.result] = entry
        return entries

    def _tidy(self) -> None:
        """One line a result, by name: the same file, whether the run was killed in between or not.

        Raises:
            OSError: another run writes there, or it cannot be written.
        """
        self._lock(alone=True)
        if not (self.locked and self._is_current()):
            return
        entries = self._read()
        of_target = Counter(name for name, _ in entries)
        lines = b""
        for (name, result), entry in sorted(entries.items()):
            path = self.folder / name
            if path.exists() and (of_target[name] == 1 or file_digest(path) == result):
                lines += line_of(asdict(entry))
        write_atomically(self.path, lines)

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
