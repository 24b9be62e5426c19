"""Start, run and stop the service."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator

import uvicorn

from maximir.errors import MaximirError, UsageError
from maximir.files import reason
from maximir.service import companion
from maximir.service.app import make_app
from maximir.service.companion import Presence
from maximir.service.connection import SILENCE, Connection
from maximir.service.limits import Guard
from maximir.service.metrics import Metrics
from maximir.service.queue import Queue
from maximir.service.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST_BYTES = 3  # seconds for clients to read their replies after the last job is done
LONGEST_HEAD = 16_384  # bytes of a request's head
PREFERRED = 8756  # port of `maximir open`: the page finds what it has kept in the browser there
ACCEPTED = 128  # pending connections, few enough to leave file descriptors free

log = logging.getLogger("maximir.service")


def serve(settings: Settings) -> None:
    """Serve until a signal, then finish the jobs in the queue. A second signal ends the process at once.

    Raises:
        MaximirError: the service cannot start; UsageError if the settings are invalid.
    """
    settings.check()
    log_to_stderr(logging.INFO if settings.opened is None else logging.WARNING)
    if settings.options.scratch is not None:
        tempfile.tempdir = os.fspath(settings.options.scratch)  # also for uploads and results
    with listen(settings) if settings.opened is None else listen_anywhere(settings) as listener:
        asyncio.run(run(settings, listener))


def log_to_stderr(level: int) -> None:
    """Log one line per event; from uvicorn, only errors."""
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    log.setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def listen(settings: Settings) -> socket.socket:
    """Return a bound socket. Binding comes first, so that a taken port is reported at once.

    Raises:
        MaximirError: the port is taken; UsageError if the host is not an address of this machine.
    """
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"{settings.host!r} is not an address of this machine; try --host 127.0.0.1"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows it would let two processes share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # at once, or a second process could bind the port
    except OSError as error:
        listener.close()
        problem = f"cannot listen at {settings.host} port {settings.port}: {reason(error)}"
        if error.errno == errno.EADDRINUSE:
            problem += "; choose another with --port, or any free one with --port 0"
        raise MaximirError(problem) from error
    return listener


def listen_anywhere(settings: Settings) -> socket.socket:
    """Return a bound socket, at any free port if the one in the settings is taken."""
    try:
        return listen(settings)
    except UsageError:
        raise
    except MaximirError:
        return listen(dataclasses.replace(settings, port=0))


def address_of(listener: socket.socket, host: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would stop listening while clients still ask for progress."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: Settings, listener: socket.socket) -> None:
    metrics = Metrics()
    queue = Queue(settings, metrics)
    with stop_on_signals(queue) as stop:
        starting = asyncio.create_task(queue.start())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                device = starting.result()
                address = address_of(listener, settings.host)
                print(f"maximir is at {address}, on {device}", flush=True)
                if settings.opened is not None:
                    opening = asyncio.create_task(open_browser(f"{address}/#opened"))
                await answer(settings, queue, metrics, listener, stopping)
                if settings.opened is not None:
                    opening.cancel()
        finally:
            starting.cancel()
            stopping.cancel()
            await queue.close()


async def open_browser(address: str) -> None:
    import webbrowser

    # In a thread, because browsers of a terminal end only later; without one, the user opens the address.
    if not await asyncio.to_thread(webbrowser.open, address):
        print(f"no browser was found: open {address}; Ctrl-C ends it", file=sys.stderr, flush=True)


async def answer(
    settings: Settings, queue: Queue, metrics: Metrics, listener: socket.socket, stopping: asyncio.Task[bool]
) -> None:
    """Answer requests until `stopping` is done, then until the queue is empty."""
    app, presence = make_app(queue, settings, metrics), Presence()
    if settings.opened is not None:
        companion.add_routes(app, settings.opened, presence)
    server = Server(
        uvicorn.Config(
            Guard(app, settings, metrics),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=LAST_BYTES,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            backlog=ACCEPTED,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    checking = asyncio.create_task(check_connections(server, min(SILENCE, settings.patience)))
    ends = [serving, stopping]
    if settings.opened is not None:
        ends.append(asyncio.create_task(presence.gone(lambda: queue.taken + queue.leaving > 0)))
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping: finishing %d images, for at most %.0f s", queue.taken, settings.drain)
    await queue.drain()
    server.should_exit = True
    await serving
    checking.cancel()
    log.info("stopped")


async def check_connections(server: Server, silence: float) -> None:
    while True:
        await asyncio.sleep(min(1.0, silence / 2))
        for connection in list(server.server_state.connections):
            if isinstance(connection, Connection):
                connection.check(silence)


@contextlib.contextmanager
def stop_on_signals(queue: Queue) -> Iterator[asyncio.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; the second signal ends the process."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            queue.kill()
            os._exit(128 + number)
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
