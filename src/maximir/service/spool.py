"""Unnamed files for uploads and results: in memory while they are small, then in the scratch folder."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

IN_MEMORY = 1 << 20  # bytes


def open_spooled() -> BinaryIO:
    """Return an empty file; the caller closes it."""
    return cast(BinaryIO, SpooledTemporaryFile(IN_MEMORY))
