"""How much work image files are, by their headers: what the time that is left is reckoned by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from maximir import headers
from maximir.network.config import padded_size


def pixels(file: BinaryIO) -> int | None:
    """That the network will see; None: the header does not say."""
    size = headers.size(file)
    return None if size is None else padded_size(size[0]) * padded_size(size[1])


def weights(paths: Sequence[Path]) -> list[int]:
    """For each file its pixels. One that does not say counts as the others do in the mean."""
    found = [pixels_of(path) for path in paths]
    known = [each for each in found if each is not None]
    mean = sum(known) // len(known) if known else 1
    return [mean if each is None else each for each in found]


def pixels_of(path: Path) -> int | None:
    try:
        if not path.is_file():  # a pipe would block for ever
            return None
        with path.open("rb") as file:
            return pixels(file)
    except (OSError, ValueError):
        return None
