"""What was done, for results that many processes write, in storage that has no locks.

The journal's rule, with an object for each picture in the folder `.maximir` beside the results: written just
before the result appears, it holds the digests of the result, of its source and of the settings. Two who do
the same picture write the same bytes, so nothing has to be locked and no listing has to be true: a result
counts if what is there now has the digest that its record says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from maximir.errors import MaximirError
from maximir.files import file_digest, line_of
from maximir.restoring.journal import Entry
from maximir.stores import Address, Missing, Store

FOLDER = ".maximir"
AHEAD = 64  # records that are asked for together: a store takes its time, but answers many at once


@dataclass(frozen=True)
class Record(Entry):
    """An entry, and the MD5 of source and result ("" if unknown), which many stores tell without reading."""

    source_md5: str = ""
    result_md5: str = ""


class Records:
    """The records beside the results in a store.

    Args:
        resume: results that fit their records stay. Otherwise the records count for nothing.
        order: in which the results will be asked for.
    """

    def __init__(
        self, store: Store, settings: str, *, resume: bool = False, order: Sequence[Address] = ()
    ) -> None:
        self.store, self.settings, self.resume = store, settings, resume
        self.order = list(order)
        self.place = {target.path: number for number, target in enumerate(self.order)}
        self.found: dict[str, Record | None] = {}

    def ours(self, target: Address) -> Record | None:
        """The record of a result that is still there, unchanged."""
        if not self.resume:
            return None
        if target.path not in self.found:
            first = self.place.get(target.path)
            if first is None:
                return self.look(target)
            ahead = self.order[first : first + AHEAD]
            with ThreadPoolExecutor(min(len(ahead), AHEAD // 2), "maximir-records") as pool:
                for each, record in zip(ahead, pool.map(self.look, ahead), strict=True):
                    self.found[each.path] = record
        return self.found.pop(target.path)

    def is_done(self, record: Record, source: Path | Address) -> bool:
        """Whether this would come of `source` again."""
        if record.settings != self.settings:
            return False
        try:
            if isinstance(source, Path):
                return file_digest(source) == record.source
            known = source.item is not None and source.item.md5 != "" and source.item.md5 == record.source_md5
            return known or hashlib.sha256(source.read()).hexdigest() == record.source
        except (OSError, MaximirError):
            return False  # said when it is read

    def add(self, record: Record, before: Record | None = None) -> None:
        """Enter a result that is about to appear, beside the one that it replaces.

        Raises:
            MaximirError: it cannot be written.
        """
        records = [record] if before is None or before.result == record.result else [before, record]
        self.store.write(
            f"{FOLDER}/{record.target}.json", b"".join(line_of(asdict(each)) for each in records)
        )

    def look(self, target: Address) -> Record | None:
        """The record of what is there now."""
        try:
            lines = self.store.read(f"{FOLDER}/{target.path}.json").splitlines()
        except Missing:
            return None
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # not of ours
                record = Record(**json.loads(line))
                if target.holds(record.result, record.result_md5):
                    return record
        return None


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
