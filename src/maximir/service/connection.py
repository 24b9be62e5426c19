"""Connections with the timeouts and limits that uvicorn lacks.

uvicorn closes connections that stay idle after a reply. It has no timeout for a request head that arrives
slowly or for a client that does not read its reply. When too many connections are open, the one that has been
idle for longest is closed, so connections without requests cannot keep other clients out.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from maximir.service.refusal import Refusal, sentence

MOST_BUSY = 256  # concurrent requests; further ones get 503 and are asked to retry
MOST_OPEN = 512  # connections; beyond this the longest idle one is closed, or the new one if none is idle
SILENCE = 20.0  # seconds to send a request's head, or to read the rest of a reply


class Connection(H11Protocol):
    """One connection; `scope["connection"]` is this object."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inner, self.app = self.app, self.serve
        self.waiting_since = 0.0  # loop time of the connection or of the last reply
        self.refused = False  # this request is refused because there are too many

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        if len(peers := self.peers()) > MOST_OPEN:
            idle = [other for other in peers if other is not self and not other.busy]
            min(idle, key=lambda other: other.waiting_since, default=self).drop()

    def peers(self) -> list[Connection]:
        """Return all open connections."""
        return [each for each in self.connections if isinstance(each, Connection) and each.open]

    @property
    def open(self) -> bool:
        return not self.transport.is_closing()

    @property
    def busy(self) -> bool:
        """True while a request is being answered."""
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
        """Drop the connection if it has been silent for too long between requests. Called every second."""
        if not self.busy and self.loop.time() > self.waiting_since + silence:
            self.drop()

    def drop(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    @property
    def lost(self) -> bool:
        return self.cycle is not None and self.cycle.disconnected

    def send_400_response(self, msg: str) -> None:
        """Reply to invalid HTTP with an error in JSON like all others; uvicorn sends plain text."""
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
