"""Work that image files are, estimated from their headers, for the remaining time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from maximir import headers
from maximir.network.config import padded_size


def padded_pixels(file: BinaryIO) -> int | None:
    """Return the pixels of an image after padding; None if its header has no size."""
    size = headers.size(file)
    return None if size is None else padded_size(size[0]) * padded_size(size[1])


def estimate_work(paths: Sequence[Path]) -> list[int]:
    """Return the padded pixels of each file; a file without a size in its header counts as the mean."""
    found = [pixels_of_file(path) for path in paths]
    known = [each for each in found if each is not None]
    mean = sum(known) // len(known) if known else 1
    return [mean if each is None else each for each in found]


def pixels_of_file(path: Path) -> int | None:
    try:
        if not path.is_file():  # a pipe would block
            return None
        with path.open("rb") as file:
            return padded_pixels(file)
    except (OSError, ValueError):
        return None
