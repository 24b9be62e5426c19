"""The user's own models: a folder of `.safetensors`, filled by `maximir get` or by hand."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from maximir.errors import MaximirError
from maximir.files import reason

HOME = "MAXIMIR_HOME"  # environment: the folder instead of the system's for data of applications
MAX_HEADER = 16 << 20  # bytes of a .safetensors' header that are read for a listing; ours have 0.3 MB


def folder() -> Path:
    """Where models are kept; it need not exist."""
    import platformdirs  # not for training, which asks for no model of the user's

    home = os.environ.get(HOME)
    return (Path(home) if home else Path(platformdirs.user_data_dir("maximir", appauthor=False))) / "models"


def path_of(name: str) -> Path:
    return folder() / f"{name}.safetensors"


def stored() -> dict[str, Path]:
    """The models that are kept, by name."""
    with contextlib.suppress(OSError):
        return {path.stem: path for path in sorted(folder().glob("*.safetensors")) if path.is_file()}
    return {}


@contextlib.contextmanager
def writing(name: str) -> Iterator[Path]:
    """The folder, made if need be, while nobody else fetches this model into it.

    Raises:
        MaximirError: it cannot be written to, or another process is fetching it.
    """
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place / f".{name}.lock", timeout=0)
        with lock:
            yield place
    except filelock.Timeout as error:
        raise MaximirError(f"{name}: another `maximir get` is fetching it now; wait for it") from error
    except OSError as error:
        raise MaximirError(
            f"{place}: models cannot be kept there ({reason(error)}); set {HOME} to another folder"
        ) from error


def header(path: Path) -> dict[str, Any]:
    """Header of a `.safetensors`: shapes by tensor, and `__metadata__`. Neither torch nor values are read.

    Raises:
        MaximirError: it is none.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            length = struct.unpack("<Q", read_exactly(file, 8))[0]
            if length > MAX_HEADER:
                raise ValueError
            value = json.loads(read_exactly(file, length))
            if not isinstance(value, dict):
                raise ValueError
        except (ValueError, EOFError, RecursionError) as error:
            raise MaximirError(f"{path}: not a safetensors file") from error
    return value


def read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError("the file is too short")
    return data
