"""Estimates of how long jobs take, from recent jobs."""

from __future__ import annotations

from dataclasses import dataclass

from maximir.progress import GUESSWORK

WEIGHT = 0.3  # of the newest job in the running means


@dataclass
class Pace:
    """Running means of the seconds a job takes; None before the first job is done."""

    per_pixel: float | None = None
    per_byte: float | None = None

    def learn(self, seconds: float, pixels: int, size: int) -> None:
        """Add a finished job: seconds, pixels, and bytes of its file."""
        self.per_pixel = mean(self.per_pixel, seconds / max(1, pixels))
        self.per_byte = mean(self.per_byte, seconds / max(1, size))

    def whole(self, pixels: int | None, size: int) -> float | None:
        """Estimate the seconds of a whole job; `pixels` is None if the header does not give the size."""
        if pixels is not None and self.per_pixel is not None:
            return pixels * self.per_pixel
        return None if self.per_byte is None else size * self.per_byte

    def left(self, pixels: int | None, size: int, elapsed: float, fraction: float) -> float | None:
        """Estimate the seconds left after `elapsed` seconds, in which `fraction` of the job was done."""
        if fraction > GUESSWORK:
            return elapsed * (1 / fraction - 1)
        whole = self.whole(pixels, size)
        return None if whole is None else max(0.0, whole - elapsed)


def mean(before: float | None, new: float) -> float:
    return new if before is None else before + WEIGHT * (new - before)
