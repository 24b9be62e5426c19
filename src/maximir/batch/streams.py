"""Standard input and output as storage: one photograph through a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from maximir import images
from maximir.batch.plan import Job, Plan, largest_file, names_a_file
from maximir.errors import MaximirError, UsageError
from maximir.files import STREAM, check_file_size, reason
from maximir.storage import Address, Folder, Item, Storage, is_address, local_path, open_storage, redact


class Stream(Storage):
    """A file that is read already, or that is written once.

    Args:
        shown: its name in messages.
        data: its content.
        target: where it is written to.
    """

    writers = 1

    def __init__(self, shown: str, data: bytes = b"", target: BinaryIO | None = None) -> None:
        self.url = self.shown = self.name = shown
        self.data, self.target = data, target

    def show(self, path: str) -> str:
        return self.shown

    def local(self, path: str) -> Path | None:
        return None

    def identify(self, path: str) -> tuple[frozenset[str], str]:
        return frozenset((STREAM,)), self.shown

    def files(self, path: str = "", leave_out: Storage | None = None) -> Iterator[tuple[Address, str | None]]:
        return iter(())

    def item(self, path: str = "") -> Item | None:
        return Item(len(self.data))

    def is_dir(self, path: str = "") -> bool:
        return False

    def exists(self, path: str) -> bool:
        return False

    def read(self, path: str, begin: int = 0, end: int | None = None, limit: int | None = None) -> bytes:
        check_file_size(len(self.data), limit)
        return self.data[begin:end]

    def read_start(self, path: str, count: int, limit: int | None = None) -> bytes:
        return self.read(path, 0, count, limit)

    def open(self, path: str, mode: str = "rb") -> BinaryIO:
        return io.BytesIO(self.data)

    def write(self, path: str, data: bytes) -> None:
        assert self.target is not None
        try:
            self.target.write(data)
            self.target.flush()
        except OSError as error:
            raise MaximirError(f"{self.shown}: {reason(error)}") from error

    def check_writable(self) -> None:
        pass


def plan_stream(
    source: str,
    output: str,
    kind: str | None,
    stdin: BinaryIO,
    stdout: BinaryIO | None,
    max_bytes: int | None = None,
) -> Plan:
    """Plan one photograph from or to a standard stream; "-" names them.

    Args:
        kind: of the result on standard output, a value of `images.KINDS`; None: the kind of the source.
        stdout: where the result is written, if `output` is "-".
        max_bytes: the memory budget: a larger source is not read. None: `images.MAX_BYTES`.

    Raises:
        UsageError: the source is a folder, or the output is not one file.
        MaximirError: the source cannot be read.
    """
    if source != STREAM and not is_address(source) and Path(source).is_dir():
        raise UsageError(f"{source}: is a folder; standard output holds one photograph")
    shown = "standard input" if source == STREAM else redact(source)
    job_source = Address(Stream(shown, data := read_source(source, shown, stdin, max_bytes)))
    if output == STREAM:
        storage: Storage = Stream("standard output", target=stdout)
        target = Address(storage, f"result.{kind or images.kind_for(data)}")
    else:
        out = local_path(output)
        if is_address(out) or not names_a_file(out, [source]):
            place = redact(output)
            raise UsageError(f"{place}: name the file for the result, such as {place.rstrip('/')}/result.png")
        storage = Folder(Path(out).parent)
        target = Address(storage, Path(out).name)
    return Plan([Job(job_source, target)], storage, to_file=True)


def read_source(source: str, shown: str, stdin: BinaryIO, max_bytes: int | None) -> bytes:
    """Return the content of a file, or of standard input; `shown` names it in messages."""
    limit = largest_file(max_bytes)
    try:
        if source == STREAM:
            data = stdin.read(limit + 1)
            check_file_size(len(data), limit)
            return data
        if is_address(source):
            return Address(open_storage(source)).read(limit=limit)
        path = Path(local_path(source))
        return Address(Folder(path.parent), path.name).read(limit=limit)
    except OSError as error:
        raise MaximirError(f"standard input: {reason(error)}") from error
    except MaximirError as error:
        raise MaximirError(f"{shown}: {str(error).removeprefix(f'{shown}: ')}") from error
