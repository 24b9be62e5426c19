"""What stands before the application: who may ask, how much may come and how slowly, what all replies say.

Works on the raw messages of ASGI, so that a request is refused before its body is read.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from maximir.files import printable
from maximir.service.refusal import Refusal
from maximir.service.settings import Settings, is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from maximir.service.connection import Connection
    from maximir.service.metrics import Metrics

FORM = 65_536  # bytes of a body besides the image
UNREAD_BYTES = 64_000_000  # that a client which was refused may go on sending, so that it reads the reply
UNREAD_PART = 0.25  # of the patience, for that
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
DEFAULT_PORTS = {"http": 80, "https": 443}
GONE = 499  # what the log says of clients that did not wait
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

log = logging.getLogger("maximir.service")


class Guard:
    """The application with limits around it."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # what GET would be told; uvicorn knows the method, and sends no body
            scope = {**scope, "method": "GET", "head": True}
        exchange = Exchange(scope, receive, send, self.settings)
        scope["exchange"] = exchange
        try:
            check(scope, exchange, self.settings)
            await self.app(scope, exchange.receive, exchange.send)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the service ends, and this client was too slow
            if exchange.connection is not None:
                exchange.connection.drop()
        except Exception:  # the application has replied with 500
            log.exception("a request failed")
        finally:
            self.account(exchange)

    def account(self, exchange: Exchange) -> None:
        scope, method = exchange.scope, exchange.method
        route = getattr(scope.get("route"), "path", "other")
        status = exchange.status or GONE
        self.metrics.answered(method, route, status, exchange.received, exchange.sent)
        client = scope["client"][0] if scope.get("client") else "-"
        line = f"{client} {method} {scope['path'][:200]} {status}"
        # Who polls for progress or health is not worth a line each time.
        level = logging.DEBUG if method in ("GET", "HEAD") and status < 400 else logging.INFO
        seconds = time.monotonic() - exchange.began
        about = f" ({exchange.about})" if exchange.about else ""
        log.log(
            level,
            "%s %.3f s, %d bytes in, %d out%s",
            printable(line),
            seconds,
            exchange.received,
            exchange.sent,
            about,
        )


def check(scope: Scope, exchange: Exchange, settings: Settings) -> None:
    """Raise Refusal for a request that is not to be read any further."""
    if "refusal" in scope and not is_monitored(scope["path"]):
        raise scope["refusal"]
    headers = exchange.headers
    host = headers.get("host", "")
    if is_loopback(settings.host) and host_name(host) not in (*LOCAL_NAMES, settings.host, *settings.names):
        # A foreign page whose name was made to point here (DNS rebinding) gets no further.
        raise Refusal(403, f"this server does not answer for {host!r}; start it with --name to allow that")
    if "origin" in headers and not same_place(headers["origin"], host, settings.names):
        raise Refusal(403, "requests from pages of other servers are not answered")
    if settings.token is not None and not is_open(scope["path"]):
        given = headers.get("authorization", "")
        if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {settings.token}".encode()):
            refusal = Refusal(401, "this server needs its token: send 'Authorization: Bearer TOKEN'")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            raise refusal
    if "transfer-encoding" in headers and "content-length" in headers:
        # A proxy before this may go by the other one, and take the rest for a request of somebody else.
        raise Refusal(400, "Content-Length and Transfer-Encoding contradict each other: send one of them")
    if int(headers.get("content-length", "0")) > exchange.most:
        raise too_large(settings)


def is_open(path: str) -> bool:
    """Whether a path needs no token."""
    return path in ("/", "/healthz", "/livez") or path.startswith("/static/")


def is_monitored(path: str) -> bool:
    """Whether who watches over the service asks for it: answered however many others there are."""
    return path in ("/healthz", "/livez", "/metrics")


def too_large(settings: Settings) -> Refusal:
    return Refusal(413, f"the image has too many bytes; this server takes {settings.max_bytes:,}")


def host_name(authority: str) -> str:
    """Without the port, in lower case."""
    return re.sub(r":\d*$", "", authority.lower()) if not authority.endswith("]") else authority.lower()


def same_place(origin: str, host: str, names: tuple[str, ...]) -> bool:
    """Whether a page of `origin` was loaded from here: from what the Host header names, or by a proxy."""
    try:
        url = urlsplit(origin)
        port = url.port or DEFAULT_PORTS.get(url.scheme)
    except ValueError:
        return False
    if url.scheme not in DEFAULT_PORTS:
        return False
    name = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    if name in names:
        return True
    default = DEFAULT_PORTS[url.scheme]
    stated = host.lower().removeprefix(host_name(host)).removeprefix(":")
    return name == host_name(host) and str(port) == (stated or str(default))


class Exchange:
    """A request and its reply, counted and timed.

    Attributes:
        method: as it was sent; the application is asked for GET where it is HEAD.
        status: of the reply; None before it starts.
        received, sent: bytes of the bodies.
        most: bytes that the request's body may have.
        about: what the log is to say besides.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings) -> None:
        self.scope, self._receive, self._send, self.settings = scope, receive, send, settings
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.method = "HEAD" if scope.get("head") else scope["method"]
        self.began = time.monotonic()
        self.status: int | None = None
        self.received = self.sent = 0
        self.most = settings.max_bytes + FORM
        self.about = ""
        # Whether the whole body was received.
        self.whole = (
            "transfer-encoding" not in self.headers and self.headers.get("content-length", "0") == "0"
        )
        self.reply_began = 0.0

    @property
    def connection(self) -> Connection | None:
        return self.scope.get("connection")

    async def receive(self) -> Message:
        """The next piece of the body, if it comes in time.

        Raises:
            Refusal: the body is too large, or comes too slowly.
        """
        if self.whole:
            return await self._receive()  # when the client goes away
        try:
            async with asyncio.timeout(self.time_left(self.began, self.received)):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "the upload was too slow") from None
        self.count(message)
        if self.received > self.most:
            raise too_large(self.settings)
        return message

    def count(self, message: Message) -> None:
        self.received += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)

    def time_left(self, began: float, done: int) -> float:
        """Seconds until this many bytes are too few; and no pause may be longer than the patience."""
        patience = self.settings.patience
        left = began + patience + done / self.settings.slowest - time.monotonic()
        return min(patience, max(0.0, left))

    async def send(self, message: Message) -> None:
        """Pass on a piece of the reply, with the headers that all have.

        Raises:
            ClientDisconnect: nobody takes it, or too slowly.
        """
        if self.connection is not None and self.connection.lost:
            raise ClientDisconnect
        if message["type"] == "http.response.start":
            self.status, self.reply_began = message["status"], time.monotonic()
            message = {**message, "headers": [*message.get("headers", []), *self.more_headers()]}
        elif not message.get("more_body", False) and not self.whole:
            await self.pass_on({**message, "more_body": True})
            await self.read_on()
            message = {"type": "http.response.body"}
        await self.pass_on(message)

    def more_headers(self) -> list[tuple[bytes, bytes]]:
        static = self.scope["path"] == "/" or self.scope["path"].startswith("/static/")
        more = [*HEADERS, (b"cache-control", b"no-cache" if static else b"no-store")]
        return more if self.whole else [*more, (b"connection", b"close")]

    async def pass_on(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self.time_left(self.reply_began, self.sent)):
                await self._send(message)
        except TimeoutError:
            if self.connection is not None:
                self.connection.drop()
                await asyncio.sleep(0)  # so that uvicorn knows
            raise ClientDisconnect from None
        if self.method != "HEAD":
            self.sent += len(message.get("body", b""))

    async def read_on(self) -> None:
        """Read and forget what the client still sends, for a while: some read no reply before they are done.

        To close at once would also take the reply from them. One that waits for our "100 Continue" does not
        send at all.
        """
        if "expect" in self.headers or self.status == 408:
            return
        until, start = time.monotonic() + UNREAD_PART * self.settings.patience, self.received
        while not self.whole and self.received < start + UNREAD_BYTES:
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    message = await self._receive()
            except TimeoutError:
                return
            if message["type"] == "http.disconnect":
                return
            self.count(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Reply with an error, unless a reply has begun."""
        if self.status is not None:
            return
        body = json.dumps({"error": refusal.sentence}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        try:
            await self.send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
            await self.send({"type": "http.response.body", "body": body})
        except ClientDisconnect:
            pass


def exchange_of(scope: Scope) -> Exchange:
    exchange: Any = scope["exchange"]
    assert isinstance(exchange, Exchange)
    return exchange
