"""A refused request: status, one sentence, and when to retry."""

from __future__ import annotations

import math
from typing import Any

from maximir.files import printable

SOON, LATE = 1.0, 300.0  # seconds: bounds of Retry-After


class Refusal(Exception):
    """An error that becomes the reply `{"error": sentence}`.

    Args:
        status: HTTP status.
        text: what happened, where, what to do; formatted as a sentence.
        retry_after: seconds, or None if a retry is of no use.
    """

    def __init__(self, status: int, text: object, retry_after: float | None = None) -> None:
        super().__init__(status, text)
        self.status = status
        self.sentence = sentence(text)
        self.headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}


def problem(text: str, path: str) -> dict[str, Any]:
    """Return the body of an error reply; below /sdapi/ in the form of AUTOMATIC1111's API."""
    if path.startswith("/sdapi/"):
        return {"error": "HTTPException", "detail": text, "body": "", "errors": text}
    return {"error": text}


def sentence(text: object) -> str:
    """Return the text on one line, with a capital letter and a full stop."""
    line = printable(text).strip() or "Something went wrong"
    return line[0].upper() + line[1:] + ("" if line.endswith((".", "!", "?")) else ".")
