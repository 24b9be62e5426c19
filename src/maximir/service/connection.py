"""Connections that neither hang nor pile up, which uvicorn leaves to others.

uvicorn ends idle connections after a reply, but waits for ever for a head that dribbles in, and for a
client that does not take the end of its reply. Who holds connections and asks for nothing keeps nobody out:
where there are too many, the one that has been idle for the longest is closed.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from maximir.service.refusal import Refusal, sentence

MOST_BUSY = 256  # requests at once; above, clients are told to come back
MOST_OPEN = 512  # connections; above, idle ones are closed, and where there is none, the new one
SILENCE = 20.0  # seconds: for the head of a request, and to take the rest of a reply


class Connection(H11Protocol):
    """One connection; `scope["connection"]` is this object."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inner, self.app = self.app, self.serve
        self.waiting_since = 0.0  # loop time: for the first head, or since the last reply
        self.refused = False  # this request, because there are too many

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        if len(peers := self.peers()) > MOST_OPEN:
            idle = [other for other in peers if other is not self and not other.busy]
            min(idle, key=lambda other: other.waiting_since, default=self).drop()

    def peers(self) -> list[Connection]:
        """All connections that are open."""
        return [each for each in self.connections if isinstance(each, Connection) and each.open]

    @property
    def open(self) -> bool:
        return not self.transport.is_closing()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        scope["connection"] = self
        self.refused = False
        if sum(each.busy and not each.refused for each in self.peers()) > MOST_BUSY:
            self.refused = True
            scope["refusal"] = Refusal(503, "too many connections; try again later", 5)
        await self.inner(scope, receive, send)

    def on_response_complete(self) -> None:
        self.waiting_since = self.loop.time()
        super().on_response_complete()

    def check(self, silence: float) -> None:
        """Called every second: drop a connection that has been silent for too long between requests."""
        if not self.busy and self.loop.time() > self.waiting_since + silence:
            self.drop()

    def drop(self) -> None:
        """Close without waiting for anything."""
        self.transport.abort()

    @property
    def lost(self) -> bool:
        return self.cycle is not None and self.cycle.disconnected

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets an error as all others are; uvicorn's is plain text."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.drop()  # in the middle of a reply
            return
        body = json.dumps({"error": sentence("this is not a valid HTTP request")}).encode()
        head = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
