"""Files that appear whole or not at all, and names that stay on one line."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PART = ".maximir-"  # files that are not whole yet begin with it


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: an older file at `path` is replaced at once, or stays as it was.

    Raises:
        OSError: the folder is missing or cannot be written to, or the disk is full. Nothing is left behind.
    """
    part = path.with_name(f"{PART}{secrets.token_hex(6)}{path.suffix}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException:  # Ctrl-C too: tidy up, and let it through
        part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """So that a new name in it survives a power cut. (Windows cannot open folders.)"""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reason(error: OSError) -> str:
    """What the system says, in its words: "no space left on device"."""
    return (error.strerror or str(error)).lower()


def printable(text: object) -> str:
    """`text` with line breaks, escape codes and the like spelt out, so that it is one harmless line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
