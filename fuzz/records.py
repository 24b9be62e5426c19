"""Fuzz what reads journals, scores of an evaluation, and recipes: see README.md.

The input: one letter (j, o, s, r), then the file. A finding is any exception but a `MaximirError`, or 15
seconds.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["maximir"]):
    from maximir.batch import journal
    from maximir.evaluation import scores
    from maximir.training import recipe
from maximir.errors import MaximirError
from maximir.storage import Address, Folder

RESULT = "a.png"


def read_journal(folder: Path, data: bytes) -> None:
    (folder / journal.FILE).write_bytes(data)
    with journal.FileJournal(folder, "s", resume=True) as found:
        use(found, folder)


def read_object(folder: Path, data: bytes) -> None:
    (folder / journal.FOLDER).mkdir()
    (folder / journal.record_path(RESULT)).write_bytes(data)
    with journal.ObjectJournal(Folder(folder), "s", resume=True) as found:
        use(found, folder)


def use(found: journal.Journal, folder: Path) -> None:
    target = Address(Folder(folder), RESULT)
    if (entry := found.find(target)) is not None:
        found.is_done(entry, target)
        found.add(entry, replaced=entry)


def read_scores(folder: Path, data: bytes) -> None:
    run, _, lines = data.partition(b"\n\n")
    (folder / scores.RUN).write_bytes(run)
    (folder / scores.SCORES).write_bytes(lines)
    scores.Book(folder, {"a": 1})


def read_recipe(folder: Path, data: bytes) -> None:
    (folder / "r.toml").write_bytes(data)
    recipe.load_recipe(str(folder / "r.toml"))


READERS = {b"j": read_journal, b"o": read_object, b"s": read_scores, b"r": read_recipe}


def one(data: bytes) -> None:
    reader = READERS.get(data[:1])
    if reader is None:
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / RESULT).write_bytes(b"result")
        with contextlib.suppress(MaximirError):
            reader(folder, data[1:])


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], "-timeout=15", "-rss_limit_mb=2000", *sys.argv[1:]], one)
    atheris.Fuzz()
