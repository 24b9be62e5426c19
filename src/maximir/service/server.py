"""Start, run and stop the service."""

from __future__ import annotations

import asyncio
import contextlib
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
from maximir.service.app import make_app
from maximir.service.connection import SILENCE, Connection
from maximir.service.limits import Guard
from maximir.service.metrics import Metrics
from maximir.service.queue import Queue
from maximir.service.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST_BYTES = 3  # seconds for clients to read their replies after the last job is done
LONGEST_HEAD = 16_384  # bytes of a request's head
ACCEPTED = 128  # pending connections, few enough to leave file descriptors free

log = logging.getLogger("maximir.service")


def serve(settings: Settings) -> None:
    """Serve until a signal, then finish the jobs in the queue. A second signal ends the process at once.

    Raises:
        MaximirError: the service cannot start; UsageError if the settings are invalid.
    """
    settings.check()
    log_to_stderr()
    if settings.options.scratch is not None:
        tempfile.tempdir = os.fspath(settings.options.scratch)  # also for uploads and results
    with listen(settings) as listener:
        asyncio.run(run(settings, listener))


def log_to_stderr() -> None:
    """Log one line per event; from uvicorn, only errors."""
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
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
        raise MaximirError(problem) from error
    return listener


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
                print(f"maximir is at {address_of(listener, settings.host)}, on {device}", flush=True)
                await answer(settings, queue, metrics, listener, stopping)
        finally:
            starting.cancel()
            stopping.cancel()
            await queue.close()


async def answer(
    settings: Settings, queue: Queue, metrics: Metrics, listener: socket.socket, stopping: asyncio.Task[bool]
) -> None:
    """Answer requests until `stopping` is done, then until the queue is empty."""
    server = Server(
        uvicorn.Config(
            Guard(make_app(queue, settings, metrics), settings, metrics),
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
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
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
