"""Parse and format amounts of memory and sizes of images."""

from __future__ import annotations

import re

from maximir.errors import UsageError

UNITS = {"": 1, "b": 1}
UNITS |= {
    prefix + end: 10**power for prefix, power in zip("kmgt", (3, 6, 9, 12), strict=True) for end in ("", "b")
}
UNITS |= {f"{prefix}ib": 2**power for prefix, power in zip("kmgt", (10, 20, 30, 40), strict=True)}


def parse_size(text: str | int) -> int:
    """Parse an amount in bytes: 4GB, 512 MiB, 3000000000.

    Raises:
        UsageError: the text is not an amount.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if match is None or match[2] not in UNITS:
        raise UsageError(f"{text!r} is not an amount of memory: write 4GB or 512MiB")
    return int(float(match[1]) * UNITS[match[2]])


def in_words(size: float) -> str:
    """Format an amount of bytes: "1.5 GB", "320 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 9.95e8 else f"{size / 1e6:.0f} MB"


def parse_pixels(text: str) -> tuple[int, int]:
    """Parse height and width from "6000x4000" (width first, as is usual).

    Raises:
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"(\d{1,7})\s*[x×]\s*(\d{1,7})", text.strip().lower())
    if match is None or not int(match[1]) or not int(match[2]):
        raise UsageError(f"{text!r} is not the size of an image: write WIDTHxHEIGHT, such as 6000x4000")
    return int(match[2]), int(match[1])
