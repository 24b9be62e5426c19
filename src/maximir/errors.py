"""The exceptions for users: bad input, explained in one sentence."""

from __future__ import annotations


class MaximirError(Exception):
    """Bad input or a failed request. The message says what happened, where, and what to do."""


class UsageError(MaximirError):
    """An invalid request, found before any work. The command exits with 2, as for invalid options."""


class UnsupportedImage(MaximirError):
    """Bytes that are not an image, or a kind of image that maximir does not read or write."""


class DamagedImage(MaximirError):
    """An image file that is truncated, empty or broken inside."""


class TooLarge(MaximirError):
    """More bytes or pixels than the limit, or than fit into memory."""


class NotEnoughMemory(MaximirError):
    """Not enough memory for an image or a part of one: "W x H pixels" and `why`."""

    def __init__(self, height: int, width: int, why: str) -> None:
        super().__init__(f"{width} x {height} pixels {why}")
        self.why = why

    def of(self, height: int, width: int) -> NotEnoughMemory:
        """Return the same error for the whole image that the part belongs to."""
        return NotEnoughMemory(height, width, self.why)
