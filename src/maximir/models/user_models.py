"""The user's models: a folder of `.safetensors`, filled by `maximir get` or by hand."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from maximir import places
from maximir.errors import MaximirError
from maximir.files import GIT_LFS, reason, refuse_pointer

METADATA = "__metadata__"
# Errors from reading JSON that is not of the expected form.
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error)
MAX_HEADER = 16 << 20  # bytes of a .safetensors' header that are read for a listing; ours have 0.3 MB


def folder() -> Path:
    """Return the folder of the user's models, which may not exist yet."""
    return places.data_folder() / "models"


def path_of(name: str) -> Path:
    return folder() / f"{name}.safetensors"


def stored() -> dict[str, Path]:
    """Return the user's models by name."""
    with contextlib.suppress(OSError):
        paths = sorted(folder().glob("[!.]*.safetensors"))  # hidden ones are being written, or a Mac's
        return {path.stem: path for path in paths if path.is_file()}
    return {}


@contextlib.contextmanager
def writing(name: str) -> Iterator[Path]:
    """Lock a model and yield the folder, created if necessary.

    Raises:
        MaximirError: the folder cannot be written to, or another process is fetching the model.
    """
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place / f".{name}.lock", timeout=0)
        with lock:
            yield place
    except filelock.Timeout as error:
        raise MaximirError(f"{name}: another `maximir get` is fetching it now; wait until it ends") from error
    except OSError as error:
        raise MaximirError(
            f"{place}: models cannot be stored there ({reason(error)}); set {places.HOME} to another folder"
        ) from error


def header(path: Path) -> dict[str, Any]:
    """Read the header of a `.safetensors`, tensors by name and `__metadata__`, without torch.

    Raises:
        MaximirError: not a safetensors file, or one that is cut off; the message does not name the path.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(len(GIT_LFS))
        refuse_pointer(start)
        try:
            (length,) = struct.unpack_from("<Q", start)
            if length > MAX_HEADER:
                raise ValueError
            file.seek(8)
            value = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in value.items() if name != METADATA]
            whole = 8 + length + max(ends, default=0)
        except NONSENSE as error:
            raise MaximirError("not a safetensors file") from error
        if os.fstat(file.fileno()).st_size != whole:
            raise MaximirError("not a whole safetensors file: its size is not the one that its header says")
    return value
