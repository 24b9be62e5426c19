"""Limits in front of the application: access, size and speed of uploads, headers of all replies.

It works on raw ASGI messages, so that a request can be refused before its body is read.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from maximir.files import printable
from maximir.service.refusal import Refusal, problem
from maximir.service.settings import Settings, is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from maximir.service.connection import Connection
    from maximir.service.metrics import Metrics

FORM = 65_536  # bytes of a body in addition to the image
UNREAD_BYTES = 64_000_000  # that a refused client may still send, so that it reads the reply
UNREAD_PART = 0.25  # fraction of `patience` allowed for that
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
DEFAULT_PORTS = {"http": 80, "https": 443}
GONE = 499  # status in the log when the client disconnected
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
    """Wraps the application with limits."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # handled as GET; uvicorn sends no body for HEAD
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
        except asyncio.CancelledError:  # the service is stopping and this client was too slow
            if exchange.connection is not None:
                exchange.connection.drop()
        except Exception:  # the application has already replied with 500
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
        # Successful polling for progress or health is not worth a line each time.
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
    """Raise Refusal if the request must not be read further."""
    if "refusal" in scope and not is_monitored(scope["path"]):
        raise scope["refusal"]
    headers = exchange.headers
    host = headers.get("host", "")
    if is_loopback(settings.host) and host_name(host) not in (*LOCAL_NAMES, settings.host, *settings.names):
        # Prevents DNS rebinding: a foreign page whose name was made to point here.
        raise Refusal(403, f"this server does not answer for {host!r}; start it with --name to allow this")
    if "origin" in headers and not same_place(headers["origin"], host, settings.names):
        raise Refusal(403, "requests from pages of other servers are refused")
    if settings.token is not None and not is_open(scope["path"]):
        given = headers.get("authorization", "").encode("latin-1")
        if is_webui(scope["path"]):
            given = as_bearer(given)
        if not hmac.compare_digest(given, f"Bearer {settings.token}".encode()):
            refusal = Refusal(401, "this server requires a token: send 'Authorization: Bearer TOKEN'")
            refusal.headers["WWW-Authenticate"] = "Basic" if is_webui(scope["path"]) else "Bearer"
            raise refusal
    if "transfer-encoding" in headers and "content-length" in headers:
        # Request smuggling: a proxy may trust the other header and take the rest for another request.
        raise Refusal(400, "Content-Length and Transfer-Encoding contradict each other: send one of them")
    if int(headers.get("content-length", "0")) > exchange.most:
        raise too_large(settings)


def is_open(path: str) -> bool:
    """Return True if the path needs no token."""
    return path in ("/", "/healthz", "/livez") or path.startswith("/static/")


def is_webui(path: str) -> bool:
    """Return True for the paths of AUTOMATIC1111's API (`webui`)."""
    return path.startswith("/sdapi/")


def as_bearer(authorization: bytes) -> bytes:
    """Return "Bearer PASSWORD" for "Basic …", whatever the user's name; other schemes unchanged."""
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return authorization
    try:
        return b"Bearer " + base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def is_monitored(path: str) -> bool:
    """Return True for monitoring paths, which are exempt from the connection limit."""
    return path in ("/healthz", "/livez", "/metrics")


def too_large(settings: Settings) -> Refusal:
    return Refusal(413, f"the image is too large; this server accepts at most {settings.max_bytes:,} bytes")


def host_name(authority: str) -> str:
    """Return the host of `host:port`, in lower case."""
    return re.sub(r":\d*$", "", authority.lower()) if not authority.endswith("]") else authority.lower()


def same_place(origin: str, host: str, names: tuple[str, ...]) -> bool:
    """Return True if the page `origin` comes from this server, by its Host header or a proxy's name."""
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

    method: as sent; the application sees GET for HEAD.
    status: of the reply; None before it starts.
    received, sent: bytes of the bodies.
    most: maximum bytes of the request's body.
    about: additional text for the log.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings) -> None:
        self.scope, self._receive, self._send, self.settings = scope, receive, send, settings
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.method = "HEAD" if scope.get("head") else scope["method"]
        self.began = time.monotonic()
        self.status: int | None = None
        self.received = self.sent = 0
        self.most = settings.max_bytes + FORM
        if settings.webui and is_webui(scope["path"]):
            self.most = settings.max_bytes * 4 // 3 + FORM  # images in base64
        self.about = ""
        # True once the whole body was received.
        self.whole = (
            "transfer-encoding" not in self.headers and self.headers.get("content-length", "0") == "0"
        )
        self.reply_began = 0.0

    @property
    def connection(self) -> Connection | None:
        return self.scope.get("connection")

    async def receive(self) -> Message:
        """Return the next piece of the body.

        Raises:
            Refusal: the body is too large or arrives too slowly.
        """
        if self.whole:
            return await self._receive()  # returns when the client disconnects
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
        """Return the seconds until `done` bytes are too few; at most `patience`, which also limits pauses."""
        patience = self.settings.patience
        left = began + patience + done / self.settings.slowest - time.monotonic()
        return min(patience, max(0.0, left))

    async def send(self, message: Message) -> None:
        """Send a piece of the reply, with the headers that every reply has.

        Raises:
            ClientDisconnect: the client is gone, or reads too slowly.
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
                await asyncio.sleep(0)  # lets uvicorn notice
            raise ClientDisconnect from None
        if self.method != "HEAD":
            self.sent += len(message.get("body", b""))

    async def read_on(self) -> None:
        """Read and discard what the client still sends, for a while: some read the reply only afterwards.

        Closing at once would lose them the reply. A client that waits for "100 Continue" sends nothing.
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
        """Reply with an error, unless a reply has already started."""
        if self.status is not None:
            return
        body = json.dumps(problem(refusal.sentence, self.scope["path"])).encode()
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
