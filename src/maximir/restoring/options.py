"""The options of a restorer, with their defaults, and the progress reports of its calls.

The command, the service, evaluation and Ray's actors all make `Options`. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

from maximir.errors import UsageError
from maximir.sizes import parse_size

PRECISIONS = ("auto", "fp32", "bf16")
VIEWS = ("auto", "exact")

# Called often, with the part that is done, 0 … 1. An exception that it raises ends the work.
Progress = Callable[[float], None]


def silent(part: float) -> None:
    """Report no progress."""


def share_progress(progress: Progress, number: int, shares: Sequence[float]) -> Progress:
    """Return the `Progress` for the `number`-th share of some work: reports a part of the whole."""
    before, whole = sum(shares[:number]), sum(shares)
    return lambda part: progress((before + shares[number] * part) / whole)


def check_fraction(name: str, value: float) -> None:
    """Raise UsageError unless `value` is a number with 0 <= value <= 1."""
    if not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {value!r}")
    if not 0 <= value <= 1:  # also true for NaN
        raise UsageError(f"{name} must be from 0 to 1, not {value:g}")


@dataclass(frozen=True)
class Options:
    """Options of a restorer.

    Attributes:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …
        precision: "fp32", or "bf16": faster and less exact arithmetic, and feature maps of half the size.
            "auto": bf16 for 8-bit images where it is faster (`engine.precision`), otherwise fp32.
        max_memory: limit for the memory of the process, in bytes or as text ("4GB"); None: most of what is
            free. What does not fit goes to scratch files, with the same result.
        scratch: folder for these; None: the system's folder for temporary files.
        ensemble: the mean over the image's eight rotations and reflections: a little better, and eight times
            the time (the paper's "geometric ensemble"; the official script's stacks them, and so fails for
            images that are not square).
        view: "exact": every image whole, as in the paper. "auto": large images, for a task that changes the
            light of the whole, get it from a small view, and detail from tiles (`views`). For other tasks
            they, and sizes a little above multiples of 64, are restored in `windows`.
        stages: end after this many of the model's stages: faster, and a little less good. None: all.
        strength: 0: the input, bit for bit … 1: what the network makes of it (`blending`).
        detail: 0 … 1: fine texture of the input that comes back.

    Raises:
        UsageError: an unknown precision or view, `max_memory` is not an amount of memory, or strength or
            detail is outside 0 … 1.
    """

    device: str = "auto"
    precision: str = "auto"
    max_memory: int | str | None = None
    scratch: str | os.PathLike[str] | None = None
    ensemble: bool = False
    view: str = "auto"
    stages: int | None = None
    strength: float = 1.0
    detail: float = 0.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f'precision must be "auto", "fp32" or "bf16", not {self.precision!r}')
        if self.view not in VIEWS:
            raise UsageError(f'view must be "auto" or "exact", not {self.view!r}')
        if self.max_memory is not None:
            parse_size(self.max_memory)
        check_fraction("strength", self.strength)
        check_fraction("detail", self.detail)

    @property
    def max_bytes(self) -> int | None:
        """`max_memory` in bytes."""
        return None if self.max_memory is None else parse_size(self.max_memory)
