"""Storage of files: folders, and addresses such as s3://bucket/folder of any storage that fsspec knows.

Writes are atomic: one PUT in object stores, elsewhere a temporary name and a move. Remote requests are
retried unless the error is permanent. Messages show no credentials.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket
import stat
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, ClassVar, TypeVar, cast
from urllib.parse import unquote, urlsplit

from maximir.errors import MaximirError, UsageError
from maximir.files import check_file_size, file_digest, part_name, read_file, reason, walk, write_atomically

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)(://|::)")  # two letters at least: C:// is a drive
WEB = {"http", "https"}
SECRETS = re.compile(r"(://)[^/@\s]*@|(\?)[^\s'\"]*")  # user:password@, and the query of a signed address
LOCAL = ("file", "local")
ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"}  # one PUT replaces
NO_CREDENTIALS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}  # an @ would be part of a bucket's name
READ_ONLY = {"zip", "tar", "libarchive", "http", "https", "github", "data"}
ATTEMPTS = 6
FIRST_WAIT = 0.3  # seconds before the first retry; doubled for each further one, plus random jitter
PERMANENT = (
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
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
)
PERMANENT_ERRNO = {
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.ELOOP,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}
REFUSED = re.compile(  # in a type's name
    "Credential|Authenticat|AccessDenied|Forbidden|Unauthorized|error_perm|Certificate|InvalidURL|LZMAError"
)
TEMPORARY_STATUS = (408, 425, 429)  # the client errors of HTTP that another attempt may avoid
GONE = (404, 410)
FOLDER_MARKERS = ("/", "_$folder$")  # ends of empty objects that consoles and Hadoop make for folders
LONGEST_REASON = 300
MD5 = re.compile(r"[0-9a-f]{32}")

Answer = TypeVar("Answer")


class Unreachable(MaximirError):
    """Remote storage did not return a file: its content is unknown, not damaged."""


class Missing(Unreachable):
    """There is nothing at this address."""


@dataclass(frozen=True)
class Item:
    """Facts about a file: its size in bytes and, where the storage returns it, the MD5 of its content."""

    size: int
    md5: str = ""


@dataclass(frozen=True)
class Address:
    """A file or folder in some storage; `path` is relative to it, with "/". `item` comes from a listing."""

    storage: Storage
    path: str = ""
    item: Item | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.storage.show(self.path)

    def __truediv__(self, name: str) -> Address:
        return Address(self.storage, f"{self.path}/{name}" if self.path else name)

    @property
    def place(self) -> str:
        """Path below the storage as names on a disk: web addresses are decoded."""
        return self.storage.place(self.path)

    @property
    def name(self) -> str:
        return PurePosixPath(self.place).name or self.storage.name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Address:
        if self.path:
            return Address(self.storage, self.path.rpartition("/")[0])
        return Address(open_storage(self.storage.url.rstrip("/").rpartition("/")[0]))

    @property
    def local(self) -> Path | None:
        """Path on this machine's disks; None for remote storage."""
        return self.storage.local(self.path)

    def is_file(self) -> bool:
        return self.storage.item(self.path) is not None

    def is_dir(self) -> bool:
        return self.storage.is_dir(self.path)

    def exists(self) -> bool:
        return self.storage.exists(self.path)

    def is_same_file(self, other: Address) -> bool:
        return self.storage.identify(self.path) == other.storage.identify(other.path)

    def size(self) -> int:
        """Return the size in bytes. Raise MaximirError if there is no such file."""
        item = self.item or self.storage.item(self.path)
        if item is None:
            raise Missing(f"{self}: there is no such file")
        return item.size

    def files(self, leave_out: Storage | None = None) -> Iterator[tuple[Address, str | None]]:
        """Yield the files below, sorted, each with a reason not to use it (or None); see `Storage.files`."""
        return self.storage.files(self.path, leave_out)

    def read(self, begin: int = 0, end: int | None = None, *, limit: int | None = None) -> bytes:
        """Read the bytes from `begin` to `end`. See `Storage.read`."""
        if self.item is not None and self.item.size:  # known without a request
            check_file_size(self.item.size, limit)
            limit = None
        return self.storage.read(self.path, begin, end, limit)

    def read_start(self, count: int, limit: int | None = None) -> bytes:
        """Read the first `count` bytes, fewer of a shorter file. Raise TooLarge over `limit` bytes in all."""
        if self.item is not None:
            check_file_size(self.item.size, limit)
        return self.storage.read_start(self.path, count, limit)

    def read_text(self, encoding: str) -> str:
        return self.read().decode(encoding)

    def open(self, mode: str = "rb") -> BinaryIO:
        return self.storage.open(self.path, mode)

    def write(self, data: bytes) -> None:
        self.storage.write(self.path, data)

    def has_content(self, sha256: str, md5: str = "") -> bool:
        """Compare the file's content with these digests; False if it cannot be read.

        Storage that returns an equal MD5 is not read.
        """
        with contextlib.suppress(OSError, MaximirError):
            item = (self.item or self.storage.item(self.path)) if md5 else None
            return (item is not None and item.md5 == md5) or self.storage.digest(self.path) == sha256
        return False


class Storage(ABC):
    """A folder on a disk or behind an address. Paths are relative to it, with "/"; "" is the folder itself.

    Attributes:
        url: opens the storage again, also in another process.
        shown: the URL for messages, without credentials.
        name: the last part of its path.
        writers: the best number of parallel writes.
    """

    url: str
    shown: str
    name: str
    writers: ClassVar[int]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __str__(self) -> str:
        return self.shown

    @abstractmethod
    def show(self, path: str) -> str:
        """Return the address of `path` for messages."""

    @abstractmethod
    def local(self, path: str) -> Path | None: ...

    @abstractmethod
    def identify(self, path: str) -> tuple[frozenset[str], str]:
        """Return a value that is equal for two addresses of the same file."""

    @abstractmethod
    def files(self, path: str = "", leave_out: Storage | None = None) -> Iterator[tuple[Address, str | None]]:
        """Yield the files below a folder, sorted, each with the reason why it cannot be used (or None).

        Hidden folders and `leave_out` are skipped.

        Raises:
            UsageError: `leave_out` is the folder itself, or the storage cannot be listed.
        """

    @abstractmethod
    def item(self, path: str = "") -> Item | None:
        """Return facts about a file; None if it is missing or a folder."""

    @abstractmethod
    def is_dir(self, path: str = "") -> bool: ...

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Return True if a file has this path; on a disk also if a folder or a broken link has it."""

    @abstractmethod
    def read(self, path: str, begin: int = 0, end: int | None = None, limit: int | None = None) -> bytes:
        """Read a file, or part of it.

        Args:
            begin, end: range of bytes; None: the end of the file.
            limit: maximum size of the file in bytes.

        Raises:
            Missing: there is no such file.
            MaximirError: it cannot be read, or is larger than `limit`. On a disk, without the path.
        """

    @abstractmethod
    def read_start(self, path: str, count: int, limit: int | None = None) -> bytes:
        """Read the first `count` bytes, fewer of a shorter file; raises as `read`."""

    def place(self, path: str) -> str:
        """Return `path` as names on a disk."""
        return path

    @abstractmethod
    def open(self, path: str, mode: str = "rb") -> BinaryIO:
        """Open a file for sequential reading."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write a file atomically; replace an older one; create folders.

        Raises:
            MaximirError: it cannot be written.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Write a file and remove it again.

        Raises:
            UsageError: nothing can be written.
        """

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file's content.

        Raises:
            OSError, MaximirError: it cannot be read.
        """
        return hashlib.sha256(self.read(path)).hexdigest()


class Folder(Storage):
    """Folder on this machine's disks. The first write creates it."""

    writers = 1

    def __init__(self, path: Path | str) -> None:
        self.root = Path(path)
        self.shown, self.name = str(self.root), self.root.name
        self.url = str(self.root.absolute())

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.url,)

    def show(self, path: str) -> str:
        return str(self.root / path)

    def local(self, path: str) -> Path:
        return self.root / path

    def identify(self, path: str) -> tuple[frozenset[str], str]:
        return frozenset(LOCAL), os.path.realpath(self.root / path)

    def files(self, path: str = "", leave_out: Storage | None = None) -> Iterator[tuple[Address, str | None]]:
        top = self.root / path
        excluded = str(leave_out.local("") or "") if leave_out is not None else ""
        excluded = os.path.realpath(excluded) if excluded else ""
        if os.path.realpath(top) == excluded:
            raise UsageError(f"{top}: input and output are the same folder; choose another output")
        unreadable: list[OSError] = []
        for here, loops, names in walk(top, unreadable.append, leave_out=excluded):
            for name in loops:
                yield self._address(here / name), "is a link to a folder that it is in"
            for name in names:
                yield self._address(here / name), None
        for error in unreadable:
            yield self._address(Path(error.filename)), reason(error)

    def item(self, path: str = "") -> Item | None:
        with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a NUL
            facts = (self.root / path).stat()
            return Item(facts.st_size) if stat.S_ISREG(facts.st_mode) else None
        return None

    def is_dir(self, path: str = "") -> bool:
        return (self.root / path).is_dir()

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.root / path)

    def read(self, path: str, begin: int = 0, end: int | None = None, limit: int | None = None) -> bytes:
        try:
            return read_file(self.root / path, limit, begin, end)
        except OSError as error:
            kind = Missing if isinstance(error, FileNotFoundError | NotADirectoryError) else MaximirError
            raise kind(reason(error)) from error

    def read_start(self, path: str, count: int, limit: int | None = None) -> bytes:
        return self.read(path, 0, count, limit)

    def open(self, path: str, mode: str = "rb") -> BinaryIO:
        return cast(BinaryIO, (self.root / path).open(mode))

    def digest(self, path: str) -> str:
        return file_digest(self.root / path)

    def write(self, path: str, data: bytes) -> None:
        file = self.root / path
        place = file.parent
        try:
            place.mkdir(parents=True, exist_ok=True)
            place = file
            write_atomically(file, data)
        except OSError as error:
            raise MaximirError(f"{place}: {reason(error)}") from error

    def check_writable(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except FileExistsError:
            hint = "is a file" if self.root.is_file() else "is no folder; for standard output, give -o -"
            raise UsageError(f"{self.root}: cannot write there ({hint})") from None
        except OSError as error:
            raise UsageError(f"{self.root}: cannot write there ({reason(error)})") from error

    def _address(self, path: Path) -> Address:
        return Address(self, "" if path == self.root else path.relative_to(self.root).as_posix())


class Remote(Storage):
    """Folder or file at an address, opened by fsspec.

    Raises:
        UsageError: an unknown scheme, a missing package, or credentials in an address that cannot have them.
    """

    writers = 4  # hides the latency of stores

    def __init__(self, url: str) -> None:
        self.schemes = {part.partition("://")[0].lower() for part in url.split("::")}
        self.url, self.shown = url, redact(url).rstrip("/")
        if "@" in url.partition("://")[2].partition("/")[0] and self.schemes & NO_CREDENTIALS:
            raise UsageError(
                f"{self.shown}: credentials do not belong in an address; put them where the store's package "
                "looks for them, such as its environment variables"
            )
        if self.schemes <= NO_CREDENTIALS:
            self.shown = url.rstrip("/")  # "?" and "@" are characters of a key there
        self._opened: tuple[int, Any] | None = None
        self.root = self._connect()[1].rstrip("/")
        self.is_web = bool(self.schemes & WEB) and urlsplit(self.root).scheme in WEB
        self.name = PurePosixPath(self.place(self.root)).name
        if self.is_web and (self.name == ".." or not urlsplit(self.root).path.strip("/")):
            self.name = urlsplit(self.root).hostname or "image"

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.url,)

    def _connect(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs
        except ModuleNotFoundError:
            raise UsageError(f"{self.shown}: addresses need fsspec: pip install 'maximir[cloud]'") from None
        try:
            # Cached listings would hide files that other processes write.
            proxies = {scheme: {"client_kwargs": {"trust_env": True}} for scheme in self.schemes & WEB}
            fs, root = url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True, **proxies)
            return fs, root
        except ImportError as error:  # "Install s3fs to access S3"
            raise UsageError(f"{self.shown}: a package for this is missing ({self._why(error)})") from None
        except ValueError as error:
            raise UsageError(f"{self.shown}: no storage of this kind is known ({self._why(error)})") from None
        except Exception as error:
            raise UsageError(f"{self.shown}: cannot be opened ({self._why(error)})") from None

    @property
    def fs(self) -> Any:
        """File system of fsspec. Each process opens its own: connections do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._connect()[0]
        return self._opened[1]

    def show(self, path: str) -> str:
        return f"{self.shown}/{redact(path) if self.is_web else path}" if path else self.shown

    def place(self, path: str) -> str:
        return unquote(re.split(r"[?#]", path)[0]).replace("\0", "_") if self.is_web else path

    def local(self, path: str) -> None:
        return None

    def identify(self, path: str) -> tuple[frozenset[str], str]:
        return frozenset(self.schemes), self._full(path)

    def files(self, path: str = "", leave_out: Storage | None = None) -> Iterator[tuple[Address, str | None]]:
        top, excluded = self._full(path), None
        if leave_out is not None and (others := leave_out.identify(""))[0] == self.schemes:
            excluded = others[1]
        if top == excluded:
            raise UsageError(
                f"{self.show(path)}: input and output are the same folder; choose another output"
            )
        try:
            found = self._try("listed", path, lambda: self.fs.find(top, detail=True))
        except MaximirError as error:
            raise UsageError(str(error)) from None
        if not found and self.is_web:
            raise UsageError(f"{self.show(path)}: there is nothing at this address")
        for full in sorted(found):
            below, item = full[len(top) :].removeprefix("/"), item_from(found[full])
            if excluded is not None and full.startswith(f"{excluded}/"):
                continue
            if item.size == 0 and below.endswith(FOLDER_MARKERS):
                continue
            if found[full].get("type") != "directory" and below and not is_in_hidden_folder(below):
                yield Address(self, full[len(self.root) :].removeprefix("/"), item), None

    def item(self, path: str = "") -> Item | None:
        info = self._info(path)
        return item_from(info) if info is not None and info.get("type", "file") == "file" else None

    def is_dir(self, path: str = "") -> bool:
        info = self._info(path)
        return info is not None and info.get("type") == "directory"

    def exists(self, path: str) -> bool:
        return self.item(path) is not None

    def read(self, path: str, begin: int = 0, end: int | None = None, limit: int | None = None) -> bytes:
        def ask() -> bytes:
            if begin == 0 and end is None:
                return bytes(self.fs.cat_file(self._full(path)))
            found = bytes(self.fs.cat_file(self._full(path), start=begin, end=end))
            if end is not None and len(found) != end - begin:
                raise OSError(f"{len(found)} bytes came instead of {end - begin}")
            return found

        if limit is not None and (item := self.item(path)) is not None:
            check_file_size(item.size, limit)
            if self.is_web and not item.size:  # the server does not say
                data = self._try("read", path, lambda: self._read_web(path, limit + 1))
                check_file_size(len(data), limit)
                return data[begin:end]
        return self._try("read", path, ask)

    def read_start(self, path: str, count: int, limit: int | None = None) -> bytes:
        full = self._full(path)
        if self.is_web:
            return self._try("read", path, lambda: self._read_web(path, count))
        return self._try("read", path, lambda: bytes(self.fs.cat_file(full, start=0, end=count)))

    def _read_web(self, path: str, count: int) -> bytes:
        """Read no more than the first bytes: a server may ignore the range."""
        headers = {"Range": f"bytes=0-{count - 1}"}
        parts, left = [], count
        with self.fs.open(self._full(path), block_size=0, size=count, headers=headers) as file:
            while left and (more := file.read(left)):
                parts.append(more)
                left -= len(more)
        return b"".join(parts)

    def open(self, path: str, mode: str = "rb") -> BinaryIO:
        return cast(BinaryIO, self._try("read", path, lambda: self.fs.open(self._full(path), mode)))

    def write(self, path: str, data: bytes) -> None:
        self._try("written", path, lambda: self._write(self._full(path), data))

    def check_writable(self) -> None:
        if self.schemes & READ_ONLY:
            raise UsageError(
                f"{self.shown}: cannot be written object by object; choose a folder or a bucket as output"
            )
        name = part_name("")
        try:
            self.write(name, b"")
        except MaximirError as error:
            raise UsageError(str(error)) from None
        with contextlib.suppress(Exception):  # removing is not required
            self.fs.rm_file(self._full(name))

    def _write(self, path: str, data: bytes) -> None:
        if self.schemes & ATOMIC:
            self.fs.pipe_file(path, data)
            return
        folder, _, name = path.rpartition("/")
        part, earlier = (f"{folder}/{part_name(PurePosixPath(name).suffix)}" for _ in range(2))
        self.fs.makedirs(folder, exist_ok=True)
        size = None
        try:
            self.fs.pipe_file(part, data)
            if self.fs.exists(path):  # many servers do not move onto a file
                size = self.fs.info(path)["size"]
                self.fs.mv(path, earlier)
            self.fs.mv(part, path)
        except BaseException:
            if size is not None:
                self._put_back(path, part, earlier, size)
            self._remove(part)
            raise
        with contextlib.suppress(Exception):  # the new file is there
            self._remove(earlier)

    def _put_back(self, path: str, part: str, earlier: str, size: int) -> None:
        """Undo a replacement: move the file of `size` bytes at `earlier` back to `path`.

        Raises:
            Unreachable: that failed too; it names the places of both files.
        """

        def attempt() -> None:
            if not self.fs.exists(earlier):
                return
            if self.fs.info(earlier)["size"] != size:  # a store that copied a part of it
                self.fs.rm_file(earlier)
                return
            self._remove(path)
            self.fs.mv(earlier, path)

        try:
            repeated(attempt)
        except Exception as error:
            names = [each.rpartition("/")[2] for each in (earlier, part)]
            raise Unreachable(
                f"{redact(path)}: cannot be replaced ({self._why(error)}); the earlier file is beside it as "
                f"{names[0]}, the new one as {names[1]}"
            ) from None

    def _remove(self, path: str) -> None:
        if self.fs.exists(path):
            self.fs.rm_file(path)

    def _info(self, path: str) -> dict[str, Any] | None:
        try:
            return cast(dict[str, Any], self._try("read", path, lambda: self.fs.info(self._full(path))))
        except Missing:
            return None

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _try(self, what: str, path: str, action: Callable[[], Answer]) -> Answer:
        """Return the answer to a request, retrying temporary errors.

        The raised error does not chain the original one, which may show secrets.
        """
        try:
            return repeated(action)
        except MaximirError:
            raise
        except FileNotFoundError:
            why = "there is nothing at this address"
            raise Missing(f"{self.show(path)}: cannot be {what} ({why})") from None
        except Exception as error:
            raise Unreachable(f"{self.show(path)}: cannot be {what} ({self._why(error)})") from None

    def _why(self, error: BaseException) -> str:
        """Describe the error in one line, without what is before an @ or after a ? in the address."""
        text = redact(" ".join(error_in_words(error).split()) or type(error).__name__)
        for found in SECRETS.finditer(self.url):
            for secret in re.split(r"[:@?&=/]", found[0]):
                if len(secret) > 3:
                    text = text.replace(secret, "***")
        return text[:LONGEST_REASON]


def open_storage(text: str | Path) -> Storage:
    """Open the folder or address `text`."""
    if isinstance(text, Path) or not is_address(text):
        return Folder(text if isinstance(text, Path) else local_path(text))
    return Remote(text)


def is_address(text: str) -> bool:
    """Return True for an address of remote storage; a path that exists on this disk is none."""
    found = SCHEME.match(text)
    if found is None or os.path.lexists(text) or local_path(text) != text:
        return False
    return found[2] == "://" or is_known_scheme(found[1])


def is_known_scheme(scheme: str) -> bool:
    """Return True for a scheme of fsspec's; "Trip::2024" is a name on a disk."""
    try:
        from fsspec import available_protocols
    except ModuleNotFoundError:
        return False
    return scheme in available_protocols()


def local_path(text: str) -> str:
    """Return `text` as a path if it is file://…, decoded if only that exists; otherwise unchanged."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in LOCAL or os.path.lexists(text):
        return text
    decoded = unquote(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)
    if not os.path.lexists(rest) and os.path.lexists(decoded):
        return decoded
    return text if "::" in rest and not os.path.lexists(rest) else rest


def is_in_hidden_folder(path: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/")[:-1])


def redact(text: str) -> str:
    """Replace credentials by *** in an address, or in a sentence with addresses."""
    return SECRETS.sub(lambda found: f"{found[1] or found[2]}***" + "@" * bool(found[1]), text)


def repeated(action: Callable[[], Answer]) -> Answer:
    """Call `action` up to ATTEMPTS times until it succeeds or its error is permanent; return its result."""
    import tenacity

    def attempt() -> Answer:
        try:
            return action()
        except FileNotFoundError as error:
            raise unmasked(error) from None

    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(FIRST_WAIT) + tenacity.wait_random(0, FIRST_WAIT),
        retry=tenacity.retry_if_exception(may_pass),
        reraise=True,
    )
    return attempts(attempt)


def may_pass(error: BaseException) -> bool:
    """Return True if another attempt may succeed: not after wrong credentials, or on a full disk."""
    if not isinstance(error, Exception) or isinstance(error, (*PERMANENT, MaximirError)):
        return False
    if REFUSED.search(type(error).__name__) or is_encrypted(error) or is_unknown_host(error):
        return False
    if isinstance(error, OSError) and error.errno in PERMANENT_ERRNO:
        return False
    status = status_of(error)
    return not (400 <= status < 500 and status not in TEMPORARY_STATUS)


def unmasked(error: FileNotFoundError) -> Exception:
    """Return the cause if fsspec's "not found" stands for a server that did not answer, or refused."""
    cause = error.__cause__
    from_web = type(cause).__module__.partition(".")[0] == "aiohttp" or isinstance(cause, TimeoutError)
    return cause if isinstance(cause, Exception) and from_web and status_of(cause) not in GONE else error


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error; 0 if it has none."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else 0


def is_encrypted(error: BaseException) -> bool:
    """Return True for an error about a missing or wrong password, such as zipfile's RuntimeError."""
    return isinstance(error, RuntimeError) and "password" in str(error).lower()


def is_unknown_host(error: BaseException) -> bool:
    """Return True if the name of a host does not exist; a name server that is down may come back."""
    cause = getattr(error, "os_error", error)
    return isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN


def error_in_words(error: BaseException) -> str:
    """Describe what kept a server from answering; other errors describe themselves."""
    cause = getattr(error, "os_error", error)
    where = "the proxy: " if "Proxy" in type(error).__name__ else ""
    status = status_of(error)
    if status == 407:
        return "the proxy asks for a user name and password (HTTP 407)"
    if status >= 400:
        return f"{where}HTTP {status} {getattr(error, 'message', '')}"
    if isinstance(cause, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(cause):
        return f"{where}connection refused"
    if isinstance(cause, socket.gaierror):
        return f"{where}unknown host"
    if "Certificate" in type(error).__name__:
        return "the server's certificate is not valid"
    if isinstance(error, TimeoutError):
        return f"{where}no answer in time"
    return str(error)


def item_from(info: dict[str, Any]) -> Item:
    """Make an item from fsspec's `info`. In S3, the ETag of an object written by one PUT is its MD5."""
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    return Item(int(info.get("size") or 0), tag if MD5.fullmatch(tag) else "")
