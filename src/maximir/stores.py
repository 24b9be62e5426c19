"""Storage that is not a disk: what is at an address such as s3://bucket/folder, through fsspec.

An object is read and written as a whole. It appears whole or not at all: by one PUT where a store knows
nothing else, otherwise under another name and then moved. What may be of the moment (a store that throttles,
a connection that breaks) is tried again. No credentials are in any message.
"""

from __future__ import annotations

import hashlib
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from maximir.errors import MaximirError, UsageError
from maximir.files import PART, write_atomically

ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::)")  # two letters at least: C:// is a drive
SECRETS = re.compile(r"(://)[^/@\s]*@|(\?)[^\s'\"]*")  # user:password@, and what signed addresses end in
LOCAL = ("file", "local")
# One PUT replaces an object at once there; a move would be a copy.
WHOLE_BY_NATURE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"}
NO_NAMES_IN = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}  # before an @: it would be part of a bucket
READ_ONLY = {"zip", "tar", "libarchive", "http", "https", "github", "data"}
ATTEMPTS = 6
FIRST_PAUSE = 0.2  # seconds; each is twice the one before
FOR_GOOD = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    TypeError,
    ValueError,
    NotImplementedError,
    MemoryError,
)
MD5 = re.compile(r"[0-9a-f]{32}")

Answer = TypeVar("Answer")


def is_address(text: str) -> bool:
    return ADDRESS.match(text) is not None


def local_path(text: str) -> str:
    """`text`, without file:// if it is an address on this machine."""
    scheme, separator, rest = text.partition("://")
    return rest if separator and scheme.lower() in LOCAL and "::" not in text else text


def shown(text: str) -> str:
    """An address, or a sentence with addresses in it, without credentials."""
    return SECRETS.sub(lambda found: f"{found[1] or found[2]}***" + "@" * bool(found[1]), text)


class Missing(MaximirError):
    """There is nothing at this address."""


@dataclass(frozen=True)
class Item:
    """What a store says of an object: its size in bytes and, if it tells, the MD5 of its content."""

    size: int
    md5: str = ""


class Store:
    """A folder at an address; objects in it have names with "/".

    Raises:
        UsageError: an unknown scheme, a package that is missing, credentials where they do not belong.
    """

    def __init__(self, url: str) -> None:
        self.url = url if is_address(url) else str(Path(url).absolute())
        self.shown = shown(url).rstrip("/")
        parts = url.split("::") if is_address(url) else ["file://"]
        self.schemes = {part.partition("://")[0].lower() for part in parts}
        self.local = self.schemes <= set(LOCAL)
        if "@" in url.partition("://")[2].partition("/")[0] and self.schemes & NO_NAMES_IN:
            raise UsageError(
                f"{self.shown}: credentials do not belong in an address; put them where the store's package "
                "looks for them, such as its environment variables"
            )
        try:
            from fsspec.core import url_to_fs

            # Old listings would hide what others write meanwhile.
            self.fs, self.root = url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            raise UsageError(f"{self.shown}: {self._why(error)}; `pip install` that package") from error
        except Exception as error:
            raise UsageError(f"{self.shown}: cannot be opened ({self._why(error)})") from error
        self.root = self.root.rstrip("/")

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)  # each process opens its own connections

    def list(self) -> Iterator[tuple[str, Item]]:
        """All objects, sorted by name, but hidden folders and what is in them.

        Raises:
            UsageError: there is nothing, or it cannot be listed.
        """
        try:
            found = self._try("listed", lambda: self.fs.find(self.root, detail=True))
        except MaximirError as error:
            raise UsageError(str(error)) from error
        for path in sorted(found):
            name = path[len(self.root) :].lstrip("/")
            if name and not any(part.startswith(".") for part in name.split("/")[:-1]):
                yield name, item_of(found[path])

    def item(self, name: str = "") -> Item | None:
        """None: there is no such object; a folder is none."""
        try:
            info = self._try("read", lambda: self.fs.info(self._path(name)), name)
        except Missing:
            return None
        return item_of(info) if info.get("type", "file") == "file" else None

    def read(self, name: str) -> bytes:
        """
        Raises:
            Missing: there is no such object.
            MaximirError: it cannot be read.
        """
        return bytes(self._try("read", lambda: self.fs.cat_file(self._path(name)), name))

    def write(self, name: str, data: bytes) -> None:
        """Put an object there, whole or not at all; an older one is replaced.

        Raises:
            MaximirError: it cannot be written.
        """
        self._try("written", lambda: self._write(self._path(name), data), name)

    def check_writable(self) -> None:
        """Try it, with an object that is removed again where that is allowed.

        Raises:
            UsageError: nothing can be written there.
        """
        if self.schemes & READ_ONLY:
            raise UsageError(
                f"{self.shown}: cannot be written object by object; choose a folder or a bucket as output"
            )
        name = f"{PART}{secrets.token_hex(6)}"
        try:
            self.write(name, b"")
        except MaximirError as error:
            raise UsageError(str(error)) from error
        try:
            self.fs.rm_file(self._path(name))
        except Exception:  # a bucket that takes and never gives back is good enough
            return

    def _write(self, path: str, data: bytes) -> None:
        if self.local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(path), data)
        elif self.schemes & WHOLE_BY_NATURE:
            self.fs.pipe_file(path, data)
        else:
            folder, _, name = path.rpartition("/")
            part = f"{folder}/{PART}{secrets.token_hex(6)}-{name}"
            self.fs.makedirs(folder, exist_ok=True)
            try:
                self.fs.pipe_file(part, data)
                if self.fs.exists(path):  # many servers do not move onto a file
                    self.fs.rm_file(path)
                self.fs.mv(part, path)
            except BaseException:
                if self.fs.exists(part):
                    self.fs.rm_file(part)
                raise

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _try(self, what: str, action: Callable[[], Answer], name: str = "") -> Answer:
        """The answer, after a few attempts where the trouble may pass."""
        where = f"{self.shown}/{shown(name)}" if name else self.shown
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except FileNotFoundError as error:
                raise Missing(f"{where}: cannot be {what} (there is nothing at this address)") from error
            except Exception as error:
                if is_for_good(error) or attempt == ATTEMPTS - 1:
                    raise MaximirError(f"{where}: cannot be {what} ({self._why(error)})") from error
            time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1))
        raise AssertionError("not reached")

    def _why(self, error: BaseException) -> str:
        """One line, without what stands before an @ or behind a ? in the address."""
        text = shown(" ".join(str(error).split()) or type(error).__name__)
        for found in SECRETS.finditer(self.url):
            for secret in re.split(r"[:@?&=/]", found[0]):
                if len(secret) > 3:
                    text = text.replace(secret, "***")
        return text[:300]


@dataclass(frozen=True)
class Address:
    """An object in a store: what a path is on a disk. `item` is what a listing said of it."""

    store: Store
    path: str
    item: Item | None = None

    def __str__(self) -> str:
        return f"{self.store.shown}/{shown(self.path)}" if self.path else self.store.shown

    @property
    def name(self) -> str:
        return (self.path or self.store.root).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    def read(self) -> bytes:
        return self.store.read(self.path)

    def write(self, data: bytes) -> None:
        self.store.write(self.path, data)

    def exists(self) -> bool:
        return self.store.item(self.path) is not None

    def holds(self, digest: str, md5: str) -> bool:
        """Whether its content has these SHA-256 and MD5; a store that tells the MD5 need not be read."""
        item = self.store.item(self.path)
        if item is None:
            return False
        return (md5 != "" and item.md5 == md5) or hashlib.sha256(self.read()).hexdigest() == digest


def item_of(info: dict[str, Any]) -> Item:
    return Item(int(info.get("size") or 0), md5_of(info))


def md5_of(info: dict[str, Any]) -> str:
    """As S3's ETag of what came by one PUT. Of others it is no MD5, and then equals none."""
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    return tag if MD5.fullmatch(tag) else ""


def is_for_good(error: BaseException) -> bool:
    """Whether another attempt would end as this one did."""
    return isinstance(error, FOR_GOOD) or "Credential" in type(error).__name__
