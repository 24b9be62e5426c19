"""A request that is not fulfilled: the status, one sentence, and when it is worth another try."""

from __future__ import annotations

import math

from maximir.files import printable

SOON, LATE = 1.0, 300.0  # seconds, bounds of what clients are told to wait


class Refusal(Exception):
    """Becomes the reply `{"error": sentence}`.

    Args:
        status: of HTTP.
        text: what, where, what to do; becomes a sentence.
        retry_after: seconds, or None where trying again is no use.
    """

    def __init__(self, status: int, text: object, retry_after: float | None = None) -> None:
        super().__init__(status, text)
        self.status = status
        self.sentence = sentence(text)
        self.headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}


def sentence(text: object) -> str:
    """With a capital letter and a full stop, on one line."""
    line = printable(text).strip() or "Something went wrong"
    return line[0].upper() + line[1:] + ("" if line.endswith((".", "!", "?")) else ".")
