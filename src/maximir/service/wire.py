"""Messages between the service and a worker process: a line of JSON, then as many bytes as it announces.

Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO

Message = dict[str, Any]


def head(message: Message, size: int = 0) -> bytes:
    """Return the line that announces `size` bytes."""
    return json.dumps(message | {"bytes": size}, default=os.fspath).encode() + b"\n"


def parse(line: bytes) -> tuple[Message, int]:
    """Return the message in a line, and the number of bytes that follow.

    Raises:
        ValueError: the line is not a message.
    """
    message = json.loads(line)
    if not isinstance(message, dict) or not isinstance(size := message.pop("bytes", None), int):
        raise ValueError("not a message")
    return message, size


def read(stream: BinaryIO) -> tuple[Message, bytes] | None:
    """Wait for the next message and return it; None at the end of the stream."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message, size = parse(line)
    body = stream.read(size)
    return (message, body) if len(body) == size else None


def write(stream: BinaryIO, message: Message, body: bytes = b"") -> None:
    stream.write(head(message, len(body)))
    stream.write(body)
    stream.flush()
