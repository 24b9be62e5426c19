"""Records of finished results, from which a stopped run continues.

An entry is written just before its result appears, with the digests of the result, its source and the
settings. An image is finished if all three digests still match. Names and times are ignored: a file that
somebody else wrote or changed is never taken for a result.

The entries have two formats. A folder that one process writes has a `FileJournal`, one file that grows by
lines. Storage without locks, or shared by many processes, has an `ObjectJournal`, a small object for each
result. Two processes that restore the same image write the same bytes, so it needs no locks and no
consistent listings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from maximir import __version__
from maximir.errors import MaximirError, UsageError
from maximir.files import PART, JsonLines, file_digest, line_of, reason, sync_folder, write_atomically
from maximir.storage import Address, Missing, Storage

if TYPE_CHECKING:
    import numpy as np

    from maximir.restoring.base import ImageRestorer

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not told apart
    fcntl = None  # type: ignore[assignment]

FILE = ".maximir.jsonl"
FOLDER = ".maximir"
LONGEST_NAME, LONGEST_PATH = 255, 900  # bytes; a disk's names, and, with room for a folder, a store's keys
AHEAD = 64  # objects requested together, as stores are slow but parallel


@dataclass(frozen=True)
class Entry:
    """Entry of one result.

    Attributes:
        target: its path below the output, with "/".
        source: SHA-256 of the source file.
        settings: digest of all settings that affect pixels: `settings_digest`.
        result: SHA-256 of the result.
        height, width: of the result.
        source_md5, result_md5: many stores return MD5s without a download; "" if unknown.
    """

    target: str
    source: str
    settings: str
    result: str
    height: int
    width: int
    source_md5: str = ""
    result_md5: str = ""


EXAMPLE = astuple(Entry("", "", "", "", 0, 0))


class Journal:
    """Base class of journals; keeps no entries itself, for single results outside an output folder.

    Args:
        settings: digest of all settings that affect pixels.
        resume: keep results that match their entries; otherwise ignore old entries.
        targets: all targets of the run, in order.
    """

    can_resume = False

    def __init__(self, settings: str, *, resume: bool = False, targets: Sequence[Address] = ()) -> None:
        self.settings, self.resume, self.targets = settings, resume, targets

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    def find(self, target: Address) -> Entry | None:
        """Return the entry of the current result at `target`, if this run resumes."""
        return self.look_up(target) if self.resume else None

    def look_up(self, target: Address) -> Entry | None:
        """Return the entry of the current result at `target`, even if another process has just written it."""
        return None

    def is_done(self, entry: Entry, source: Address) -> bool:
        """Return True if `source` and the settings are those of the entry."""
        return entry.settings == self.settings and source.has_content(entry.source, entry.source_md5)

    def add(self, entry: Entry, replaced: Entry | None = None) -> None:
        """Record a result that is about to appear, perhaps in place of an earlier one.

        Raises:
            MaximirError: it cannot be written.
        """

    def close(self, *, complete: bool = True) -> None:
        """End the run; `complete` unless it was stopped."""


class FileJournal(Journal):
    """Journal of a folder in one file, which stays open during the run.

    Raises:
        UsageError: on resuming while another run writes there.
        MaximirError: the journal cannot be read or written.
    """

    can_resume = True

    def __init__(
        self, folder: Path, settings: str, *, resume: bool = False, targets: Sequence[Address] = ()
    ) -> None:
        super().__init__(settings, resume=resume, targets=targets)
        self.folder = folder
        self.path = folder / FILE
        try:
            self.lines = JsonLines(self.path)
            self._lock(alone=resume)
            while self.locked and not self._is_current():  # another run has just rewritten it
                self.lines.close()
                self.lines = JsonLines(self.path)
                self._lock(alone=resume)
            sync_folder(folder)
            # By target and result: after a failed replacement, the earlier result is still there.
            self.entries = self._read() if resume else {}
            self.known = {name for name, _ in self.entries}
        except BlockingIOError as error:
            self.lines.close()
            raise UsageError(f"{folder}: another maximir writes there; wait for it") from error
        except OSError as error:
            raise MaximirError(f"{self.path}: cannot be read or written ({reason(error)})") from error
        if resume:
            remove_parts({self.path, *(folder / target.path for target in targets)})

    def look_up(self, target: Address) -> Entry | None:
        with contextlib.suppress(OSError, MaximirError):
            if (name := composed(target.path)) in self.known:
                return self.entries.get((name, target.storage.digest(target.path)))
        return None

    def add(self, entry: Entry, replaced: Entry | None = None) -> None:
        try:
            self.lines.add(values_of(entry), sync=True)
        except OSError as error:
            raise MaximirError(f"{self.path}: cannot be written ({reason(error)})") from error

    def close(self, *, complete: bool = True) -> None:
        if complete:
            with contextlib.suppress(OSError):  # in use, or the disk is full: it is valid without this
                self._tidy()
        self.lines.close()

    def _lock(self, *, alone: bool) -> None:
        """Lock the file, exclusively or shared, where the file system has locks.

        Raises:
            BlockingIOError: another run holds the lock.
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
        """Return True if the open file is still the one at its path."""
        return self.path.exists() and os.path.samestat(os.fstat(self.lines.file.fileno()), self.path.stat())

    def _read(self) -> dict[tuple[str, str], Entry]:
        """Return the newest entry of each target, by its composed name, and result."""
        return {(composed(entry.target), entry.result): entry for entry in parse_entries(self.lines.read())}

    def _tidy(self) -> None:
        """Rewrite the file with one line per result, sorted by name, as an undisturbed run leaves it.

        Raises:
            OSError: another run writes there, or it cannot be written.
        """
        self._lock(alone=True)
        if not (self.locked and self._is_current()):
            return
        entries = self._read()
        of_target = Counter(name for name, _ in entries)
        lines = []  # adding up bytes would take time that grows with their square
        for (name, result), entry in sorted(entries.items()):
            there = (path for each in forms(entry.target) if (path := self.folder / each).exists())
            if any(of_target[name] == 1 or file_digest(path) == result for path in there):
                lines.append(line_of(values_of(entry)))
        write_atomically(self.path, b"".join(lines))


class ObjectJournal(Journal):
    """Journal beside the results: one object per entry in the folder `.maximir`."""

    can_resume = True

    def __init__(
        self, storage: Storage, settings: str, *, resume: bool = False, targets: Sequence[Address] = ()
    ) -> None:
        super().__init__(settings, resume=resume, targets=targets)
        self.storage = storage
        self.place = {target.path: number for number, target in enumerate(targets)}
        self.found: dict[str, Entry | None] = {}

    def find(self, target: Address) -> Entry | None:
        if not self.resume or target.path not in self.place:
            return super().find(target)
        if target.path not in self.found:
            first = self.place[target.path]
            ahead = self.targets[first : first + AHEAD]
            with ThreadPoolExecutor(min(len(ahead), AHEAD // 2), "maximir-journal") as pool:
                lookups = [(each.path, pool.submit(self.look_up, each)) for each in ahead]
            # One that failed is looked up again at its own turn.
            self.found |= {path: lookup.result() for path, lookup in lookups if not lookup.exception()}
        return self.found.pop(target.path) if target.path in self.found else self.look_up(target)

    def look_up(self, target: Address) -> Entry | None:
        for name in forms(target.path):
            with contextlib.suppress(Missing):
                lines = self.storage.read(record_path(name)).splitlines()
                for entry in parse_entries(map(parse_line, lines)):
                    if target.has_content(entry.result, entry.result_md5):
                        return entry
        return None

    def add(self, entry: Entry, replaced: Entry | None = None) -> None:
        entries = [entry] if replaced is None or replaced.result == entry.result else [replaced, entry]
        self.storage.write(record_path(entry.target), b"".join(line_of(asdict(each)) for each in entries))


def composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def forms(name: str) -> list[str]:
    """Return a name, then its other spellings: Macs write "é" as two characters where others write one."""
    return list(dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name))))


def record_path(target: str) -> str:
    """Return the path of a result's object: its own below `.maximir`, or a digest where that is too long."""
    path = f"{FOLDER}/{target}.json"
    data = os.fsencode(path)
    if len(data) > LONGEST_PATH or max(map(len, data.split(b"/"))) > LONGEST_NAME:
        return f"{FOLDER}/{hashlib.sha256(os.fsencode(target)).hexdigest()}.json"
    return path


def parse_entries(values: Iterator[Any]) -> Iterator[Entry]:
    """Yield the entries among decoded lines of JSON; skip all else."""
    for each in values:
        with contextlib.suppress(TypeError):
            entry = Entry(**each)
            if all(
                type(value) is type(example) for value, example in zip(astuple(entry), EXAMPLE, strict=True)
            ):
                yield entry


def parse_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def values_of(entry: Entry) -> dict[str, Any]:
    """Return the values of a line of a `FileJournal`: without MD5s, which disks do not return."""
    return {name: value for name, value in asdict(entry).items() if not name.endswith("_md5")}


def settings_of(restorer: ImageRestorer, mask: np.ndarray | None = None) -> str:
    """Return one digest of all settings that affect the pixels of a restorer's results.

    Settings that are as they were before they existed are left out, so that earlier runs continue.
    """
    options = restorer.options
    weights: object = [[file_digest(path), strength] for path, strength in restorer.files]
    others = {
        "stages": options.stages,
        "strength": None if options.strength == 1 else options.strength,
        "detail": options.detail or None,
        "mask": None if mask is None else hashlib.sha256(mask.tobytes()).hexdigest(),
    }
    return settings_digest(
        weights=weights,
        precision=restorer.precision,  # "auto" is resolved for this machine
        ensemble=options.ensemble,
        view=options.view,
        version=__version__,
        **{name: value for name, value in others.items() if value is not None},
    )


def settings_digest(**settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def remove_parts(targets: set[Path]) -> None:
    """Remove incomplete files of a killed run; only while no other run writes there."""
    for folder in {target.parent for target in targets}:
        for part in folder.glob(f"{PART}*"):
            with contextlib.suppress(OSError):
                part.unlink()
