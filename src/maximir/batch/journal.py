"""What is done, so that a run that was stopped goes on where it was.

Each result is entered just before it appears: its digest, its source's and that of the settings. It is done
if the result, its source and the settings still have these digests. Names and times count for nothing, and a
file that somebody else put there, or changed, is never taken for ours.

The entries have two formats. A folder that one process writes has a `FileJournal`, one file that grows by
lines. Storage without locks, or shared by many processes, has an `ObjectJournal`, a small object for each
result: two processes that restore the same image write the same bytes, so nothing is locked and no listing
has to be true.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from maximir import __version__
from maximir.errors import MaximirError, UsageError
from maximir.files import PART, JsonLines, file_digest, line_of, reason, sync_folder, write_atomically
from maximir.storage import Address, Missing, Storage

if TYPE_CHECKING:
    from maximir.restoring.restorer import Restorer

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not told apart
    fcntl = None  # type: ignore[assignment]

FILE = ".maximir.jsonl"
FOLDER = ".maximir"
LONGEST_NAME, LONGEST_PATH = 255, 900  # bytes; a disk's names, and, with room for a folder, a store's keys
AHEAD = 64  # objects that are asked for together: a store takes its time, but answers many at once


@dataclass(frozen=True)
class Entry:
    """One result.

    Attributes:
        target: its path below the output, with "/".
        source: SHA-256 of the file that it came from.
        settings: what decides the pixels: `settings_digest`.
        result: SHA-256 of the result.
        height, width: of the result.
        source_md5, result_md5: many stores tell them without reading; "" if unknown.
    """

    target: str
    source: str
    settings: str
    result: str
    height: int
    width: int
    source_md5: str = ""
    result_md5: str = ""


class Journal:
    """The entries of a run's results. This one keeps none: for a result outside a folder of results.

    Args:
        settings: digest of what decides the pixels.
        resume: results that fit their entries stay. Otherwise old entries count for nothing.
        targets: of the run, in their order.
    """

    def __init__(self, settings: str, *, resume: bool = False, targets: Sequence[Address] = ()) -> None:
        self.settings, self.resume, self.targets = settings, resume, targets

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    def find(self, target: Address) -> Entry | None:
        """The entry of the result that is at `target` now, if this run resumes."""
        return self.look_up(target) if self.resume else None

    def look_up(self, target: Address) -> Entry | None:
        """The entry of the result that is at `target` now, even if another process has just written it."""
        return None

    def is_done(self, entry: Entry, source: Address) -> bool:
        """Whether `source` would give the same result again."""
        return entry.settings == self.settings and source.has_content(entry.source, entry.source_md5)

    def add(self, entry: Entry, replaced: Entry | None = None) -> None:
        """Keep the entry of a result that is about to appear, perhaps instead of another one of ours.

        Raises:
            MaximirError: it cannot be written.
        """

    def close(self, *, complete: bool = True) -> None:
        """End the run; `complete` if it was not stopped."""


class FileJournal(Journal):
    """The entries of a folder in one file, open as long as the run takes.

    Raises:
        UsageError: to resume, while another run writes there.
        MaximirError: the journal cannot be read or written.
    """

    def __init__(
        self, folder: Path, settings: str, *, resume: bool = False, targets: Sequence[Address] = ()
    ) -> None:
        super().__init__(settings, resume=resume, targets=targets)
        self.folder = folder
        self.path = folder / FILE
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
            self.known = {name for name, _ in self.entries}
        except BlockingIOError as error:
            self.lines.close()
            raise UsageError(f"{folder}: another maximir writes there; wait for it") from error
        except OSError as error:
            raise MaximirError(f"{self.path}: cannot be read or written ({reason(error)})") from error
        if resume:
            remove_parts({folder / target.path for target in targets})

    def look_up(self, target: Address) -> Entry | None:
        with contextlib.suppress(OSError, MaximirError):
            if target.path in self.known:
                return self.entries.get((target.path, target.storage.digest(target.path)))
        return None

    def add(self, entry: Entry, replaced: Entry | None = None) -> None:
        try:
            self.lines.add(values_of(entry), sync=True)
        except OSError as error:
            raise MaximirError(f"{self.path}: cannot be written ({reason(error)})") from error

    def close(self, *, complete: bool = True) -> None:
        if complete:
            with contextlib.suppress(OSError):  # it is in use, or the disk is full: it is good as it is
                self._tidy()
        self.lines.close()

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
        return {(entry.target, entry.result): entry for entry in parse_entries(self.lines.read())}

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
                lines += line_of(values_of(entry))
        write_atomically(self.path, lines)


class ObjectJournal(Journal):
    """The entries beside the results, an object for each in the folder `.maximir`."""

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
                for each, entry in zip(ahead, pool.map(self.look_up, ahead), strict=True):
                    self.found[each.path] = entry
        return self.found.pop(target.path)

    def look_up(self, target: Address) -> Entry | None:
        try:
            lines = self.storage.read(record_path(target.path)).splitlines()
        except Missing:
            return None
        for entry in parse_entries(map(parse_line, lines)):
            if target.has_content(entry.result, entry.result_md5):
                return entry
        return None

    def add(self, entry: Entry, replaced: Entry | None = None) -> None:
        entries = [entry] if replaced is None or replaced.result == entry.result else [replaced, entry]
        self.storage.write(record_path(entry.target), b"".join(line_of(asdict(each)) for each in entries))


def record_path(target: str) -> str:
    """Return the path of a result's object: its own below `.maximir`, or a digest where that is too long."""
    path = f"{FOLDER}/{target}.json"
    data = os.fsencode(path)
    if len(data) > LONGEST_PATH or max(map(len, data.split(b"/"))) > LONGEST_NAME:
        return f"{FOLDER}/{hashlib.sha256(os.fsencode(target)).hexdigest()}.json"
    return path


def parse_entries(values: Iterator[Any]) -> Iterator[Entry]:
    """The entries among what lines of JSON hold; none that are not ours."""
    for each in values:
        with contextlib.suppress(TypeError):
            yield Entry(**each)


def parse_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def values_of(entry: Entry) -> dict[str, Any]:
    """As a line of a `FileJournal` has them: without MD5s, which no disk tells."""
    return {name: value for name, value in asdict(entry).items() if not name.endswith("_md5")}


def settings_of(restorer: Restorer) -> str:
    """One digest for all that decides the pixels of a restorer's results."""
    from maximir.models import choice

    options = restorer.options
    stages = {} if options.stages is None else {"stages": options.stages}
    return settings_digest(
        weights=file_digest(choice.resolve(restorer.path_or_name)),
        precision=restorer.precision,  # for "auto", what it means on this machine
        ensemble=options.ensemble,
        view=options.view,
        version=__version__,
        **stages,
    )


def settings_digest(**settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def remove_parts(targets: set[Path]) -> None:
    """Remove what a run that was killed left half-written; only while no other run writes there."""
    for folder in {target.parent for target in targets}:
        for part in folder.glob(f"{PART}*"):
            with contextlib.suppress(OSError):
                part.unlink()
