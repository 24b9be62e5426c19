"""A photograph in memory: its pixels, and what its file said about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maximir.images.codecs import tiff
from maximir.images.metadata.fields import Metadata


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph, upright."""

    rgb: np.ndarray  # [H, W, 3] uint8 or uint16, full range; a grey one has three equal channels
    grey: bool = False  # the file was grey: write() writes one channel back
    alpha: np.ndarray | None = None  # [H, W], same dtype as rgb; or a TIFF's extra channel
    metadata: Metadata = field(default_factory=Metadata)  # what write() puts back
    notes: tuple[str, ...] = ()  # facts worth telling the user
    steps: tuple[dict[str, Any], ...] = ()  # what each link of a chain did: a report's "steps"
    digest: str = ""  # SHA-256 of the file that `read` decoded
    source: bytes = b""  # the file that it was decoded from
    # A restorer that leaves the pixels alone puts the notes of reading here: a copy loses nothing.
    unchanged: tuple[str, ...] | None = None

    @property
    def transparency(self) -> np.ndarray | None:
        """`alpha`, unless it is another channel of a TIFF, such as a scanner's infrared."""
        return None if self.metadata.get("extra-sample") == tiff.UNSPECIFIED else self.alpha
