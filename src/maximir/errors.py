"""The exceptions that users meet: bad input, told in one sentence."""

from __future__ import annotations


class MaximirError(Exception):
    """Bad input or a request that failed. The message says what, where and what to do."""


class UsageError(MaximirError):
    """A request that makes no sense, found before any work. The command exits with 2, as for bad options."""


class UnsupportedImage(MaximirError):
    """Bytes that are not an image, or a kind of image that maximir does not read or write."""


class DamagedImage(MaximirError):
    """An image file that is truncated, empty or broken inside."""


class TooLarge(MaximirError):
    """More bytes or pixels than the limit, or than there is memory for."""


class NotEnoughMemory(MaximirError):
    """An image, or a part of one, for which there is not enough memory: "W x H pixels" and `why`."""

    def __init__(self, height: int, width: int, why: str) -> None:
        super().__init__(f"{width} x {height} pixels {why}")
        self.why = why

    def of(self, height: int, width: int) -> NotEnoughMemory:
        """The same of the image to which the part belongs."""
        return NotEnoughMemory(height, width, self.why)
