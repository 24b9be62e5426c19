"""Restore photographs where they are: each result takes its source's name, and the original stays beside it.

The original of `a.tif` is kept as `a.tif.original`, which appears before the result does. A photograph beside
its original is done; if both are equal, an earlier run was killed in between.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from maximir import headers
from maximir.batch.journal import Entry, Journal
from maximir.batch.neighbours import KEPT, LeftAlone
from maximir.batch.plan import Job, Plan, find_sources, given_places, nothing_in
from maximir.errors import MaximirError, UsageError
from maximir.files import file_digest, reason, write_atomically
from maximir.storage import Address, Folder


def kept(path: Path) -> Path:
    """Return the name of the original of a photograph: beside the file itself, if `path` is a link to it."""
    return Path(os.path.realpath(path) + KEPT)


class InPlace(Folder):
    """A folder whose photographs are replaced by their results."""

    def check_writable(self) -> None:
        """Refuse nothing: photographs may be in many folders, and `write` names those it cannot replace."""

    def write(self, path: str, data: bytes) -> None:
        """Keep the original, then replace the file. A file that stays as it is needs no original.

        Raises:
            MaximirError: the original cannot be kept, or the result cannot be written: the file is as it was.
        """
        file = Path(os.path.realpath(self.root / path))
        original = kept(file)
        try:
            if file.read_bytes() == data:
                return
            is_new = keep(file, original)
            try:
                write_atomically(file, data, like=original)
            except BaseException:
                if is_new:
                    original.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise MaximirError(f"cannot be replaced ({reason(error)})") from error


def keep(file: Path, original: Path) -> bool:
    """Give the file a second name, or copy it where a disk has no links; return False if it was kept before.

    Raises:
        OSError: it cannot be kept.
        MaximirError: another file has this name.
    """
    try:
        os.link(file, original)
    except FileExistsError:
        if filecmp.cmp(file, original, shallow=False):
            return False
        raise MaximirError(f"{original} exists but differs from {file.name}; move one of them") from None
    except OSError:
        if original.exists():
            raise
        write_atomically(original, file.read_bytes(), like=file)
        with contextlib.suppress(OSError):
            shutil.copystat(file, original)
    return True


class KeptOriginals(Journal):
    """Finds what is done by its kept original. Nothing is restored twice, whatever the settings."""

    def find(self, target: Address) -> Entry | None:
        path = target.local
        assert path is not None
        try:
            original = kept(path)
            if not original.exists() or filecmp.cmp(path, original, shallow=False):
                return None
            with path.open("rb") as file:
                height, width = headers.size(file) or (0, 0)
            return Entry(target.path, file_digest(original), self.settings, file_digest(path), height, width)
        except OSError as error:
            raise MaximirError(reason(error)) from error

    def is_done(self, entry: Entry, source: Address) -> bool:
        return True


class InPlacePlan(Plan):
    """Jobs whose results replace their sources."""

    def open_journal(self, settings: str, *, resume: bool) -> Journal:
        return KeptOriginals(settings)


def plan_in_place(inputs: Sequence[str | Path], report: Path | None = None) -> Plan:
    """Map each photograph to itself.

    Raises:
        UsageError: no inputs, or one that is not on a disk.
    """
    jobs: dict[str, Job] = {}
    left_alone = LeftAlone(report=report)
    places = given_places(inputs)
    for given in places:
        for source, _, problem in find_sources(given, None, left_alone, chosen=len(places) == 1):
            if (path := source.local) is None:
                raise UsageError(f"{source}: --in-place is for files on disks; give --output")
            target = Address(InPlace(path.parent), path.name)
            jobs.setdefault(os.path.realpath(path), Job(source, target, problem))
    if not jobs:
        raise nothing_in(places, left_alone)
    found = list(jobs.values())
    return InPlacePlan(found, found[0].target.storage, left_alone=left_alone)
