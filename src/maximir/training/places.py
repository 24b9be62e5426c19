"""Where training images lie: paths of this machine, and addresses of any storage that fsspec knows.

An `Address` has of `pathlib.Path` what `maximir.training.data` uses, so that both are read alike. Bytes come
by range requests: a member of a shard is read where it lies in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from maximir.errors import MaximirError, UsageError
from maximir.files import reason

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::|://)")  # s3://…, also simplecache::s3://…
SECRET = re.compile(r"(?<=://)[^/@]*@|\?.*")  # a user with password, a signature: never shown
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further try
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)  # not worth one
T = TypeVar("T")


class Unreachable(MaximirError):
    """Bytes that cannot be had, so that nobody knows what they are: not a damaged image to be skipped."""


@dataclass(frozen=True)
class Address:
    """A file or a folder in some storage.

    Attributes:
        text: as the user gave it; str() leaves out what is secret.
    """

    text: str

    def __str__(self) -> str:
        return SECRET.sub("", self.text)

    @property
    def name(self) -> str:
        return PurePosixPath(str(self)).name

    @property
    def stem(self) -> str:
        return PurePosixPath(str(self)).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(str(self)).suffix

    @property
    def parent(self) -> Address:
        return Address(self.text.rstrip("/").rpartition("/")[0])

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text.rstrip('/')}/{name}")

    def is_file(self) -> bool:
        return bool(self._ask(lambda fs, path: fs.isfile(path)))

    def is_dir(self) -> bool:
        return bool(self._ask(lambda fs, path: fs.isdir(path)))

    def size(self) -> int:
        """Bytes."""
        return int(self._ask(lambda fs, path: fs.size(path)))

    def read(self, begin: int, end: int) -> bytes:
        """These bytes of the file."""

        def ask(fs: object, path: str) -> bytes:
            found: bytes = fs.cat_file(path, start=begin, end=end)  # type: ignore[attr-defined]
            if len(found) != end - begin:
                raise OSError(f"{len(found)} bytes came instead of {end - begin}")
            return found

        return self._ask(ask)

    def read_text(self, encoding: str) -> str:
        return self.read(0, self.size()).decode(encoding)

    def open(self, mode: str = "rb") -> BinaryIO:
        """For reading from its beginning to its end: in blocks, ahead."""
        return self._ask(lambda fs, path: fs.open(path, mode))

    def files(self) -> Iterator[tuple[str, Address]]:
        """What lies below: names relative to here, and addresses; sorted."""
        root, names = self._ask(lambda fs, path: (path, fs.find(path)))
        for name in sorted(names):
            below = name[len(root) :].lstrip("/")
            yield below, self / below

    def _ask(self, question: Callable[..., T]) -> T:
        """The storage's answer. What may be a passing failure is tried again.

        Each process makes its own connection (fsspec keeps them by process): a fork does not share one.

        Raises:
            UsageError: the scheme is unknown, or needs a package that is not there.
            Unreachable: there is no answer.
        """
        for wait in (*WAITS, None):
            try:
                fs, path = filesystem(self)
                return question(fs, path)
            except MaximirError:
                raise
            except Exception as error:  # each storage's client has its own
                if wait is None or isinstance(error, FINAL):
                    why = reason(error) if isinstance(error, OSError) and error.errno else str(error)
                    text = SECRET.sub("", f"{self}: cannot be read ({why or type(error).__name__})")
                    raise Unreachable(text) from None  # the original may show what is secret
                time.sleep(wait)
        raise AssertionError("never here")


Place = Path | Address


def place_of(text: str | Path) -> Place:
    """What the user means: an address, or a path of this machine."""
    return Address(text) if isinstance(text, str) and SCHEME.match(text) else Path(text)


def filesystem(address: Address) -> tuple[object, str]:
    """Who answers for an address, and what it calls it.

    Raises:
        UsageError: nobody does.
    """
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise UsageError(f"{address}: addresses need fsspec: pip install 'maximir[cloud]'") from None
    try:
        fs, path = url_to_fs(address.text)
        return fs, path
    except ImportError as error:  # "Install s3fs to access S3"
        raise UsageError(f"{address}: a package for this is missing ({error})") from None
    except ValueError as error:
        raise UsageError(f"{address}: no storage of this kind is known ({error})") from None
