"""Services in processes of their own, as tests need them. Every connection that they open is an error."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil

PATIENCE = 60  # seconds; only what is broken waits that long
FRESH = httpx.Limits(max_keepalive_connections=0)  # no connection that is being closed by then
FAKE = Path(__file__).parent / "fake_worker.py"
# Each connection that a process opens is written down: nothing may ever connect to anything.
SPY = """
import sys
def spy(event, arguments):
    asks = event == "socket.getaddrinfo" and arguments[0] != "127.0.0.1"
    if event in ("socket.connect", "socket.sendto") or asks:
        with open({file!r}, "a") as file:
            print(event, arguments[1:], file=file)
sys.addaudithook(spy)
"""
SERVE = """
import json, resource, sys
from maximir.restoring.options import Options
from maximir.service import server
from maximir.service.settings import Settings
wishes = json.loads(sys.argv[1])
wishes = {name: tuple(value) if isinstance(value, list) else value for name, value in wishes.items()}
wishes["options"] = Options(**wishes["options"])
if largest := wishes.pop("largest_file", None):  # as if the disk were full
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
server.serve(Settings(**wishes))
"""
WORK = "from maximir.service.worker import main\nmain()"


class Service:
    """A running service. Use as a context manager: in the end, whatever is left of it is killed."""

    def __init__(self, folder: Path, *, real: bool = False, **settings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.calls, self.log, self.stderr = folder / "connections", folder / "worker", folder / "stderr"
        spy = SPY.format(file=str(self.calls))
        worker = [sys.executable, "-c", spy + WORK] if real else [sys.executable, str(FAKE), str(self.log)]
        options = {"scratch": str(folder), "precision": "fp32"}
        wishes = {"port": 0, "worker": worker, "options": options, **settings}
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", spy + SERVE, json.dumps(wishes)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        self.held: set[str] = set()
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline().decode()
        if found := re.search(r"(http://\S+:(\d+)),", self.first):
            self.url, self.port = found[1], int(found[2])
            self.client = httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, limits=FRESH)

    def __enter__(self):
        assert self.first, self.stderr.read_text()
        return self

    def __exit__(self, *error):
        self.client.close()
        family = [self.process, *children(self.process.pid)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self.process.stdout.close()
        if error == (None, None, None):
            assert not self.calls.exists(), self.calls.read_text()
            assert "Traceback" not in self.stderr.read_text(), self.stderr.read_text()

    def restore(self, data: bytes, name="photo.png", *, task="denoise", headers=None, files=None, **fields):
        """POST /v1/restore."""
        fields, files = {"task": task, **fields}, {"image": (name, data), **(files or {})}
        return self.client.post("/v1/restore", data=fields, files=files, headers=headers)

    def later(self, *args, **kwargs) -> "Later":
        """The same in a thread."""
        return Later(lambda: self.restore(*args, **kwargs))

    def begin(self, data: bytes, *more: tuple[str, None, bytes]) -> socket.socket:
        """The request sent, the reply not read: to go away from."""
        body, kind = form(("image", "a", data), ("task", None, b"denoise"), *more)
        connection = self.raw()
        connection.sendall(head(len(body), kind) + body)
        return connection

    def progress(self, id):
        return self.client.get(f"/v1/progress/{id}")

    def health(self):
        return self.client.get("/healthz")

    def metric(self, name: str) -> float:
        """The sum of a metric's lines."""
        text = self.client.get("/metrics").text
        found = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    @property
    def worker(self) -> psutil.Process:
        """The worker process; waits until there is one."""
        return until(lambda: children(self.process.pid))[0]

    def hold(self, name: str) -> str:
        """For a wish: the fake worker is to hold the image until `release`."""
        self.held.add(name)
        return name

    def release(self, *names: str) -> None:
        for name in names:
            self.log.with_name(name).touch()

    def worker_log(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def raw(self) -> socket.socket:
        """A connection to say anything."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def files(self) -> list[str]:
        """Files without a name that the service has open: uploads and results."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        return [link for link in map(readlink, folder.iterdir()) if link.endswith("(deleted)")]

    def idle(self) -> bool:
        """Whether no place is taken, no result leaves and no file is open."""
        return not (
            self.metric("maximir_places_taken") or self.metric("maximir_results_leaving") or self.files()
        )


class Later(threading.Thread):
    """A call under way."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.value, self.error = call, None, None
        self.start()

    def run(self):
        try:
            self.value = self.call()
        except Exception as error:
            self.error = error

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


def readlink(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def until(condition, seconds=PATIENCE):
    """Wait for something true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return value


def wish(**what) -> bytes:
    """An upload for the fake worker."""
    return json.dumps(what).encode() + b" the rest"


def form(*parts: tuple[str, str | None, bytes], boundary="edge") -> tuple[bytes, bytes]:
    """A multipart body of (field, file name or None, content), and its type."""
    body = b""
    for field, name, content in parts:
        file = "" if name is None else f'; filename="{name}"'
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}".encode()


def head(length: int | None, kind=b"multipart/form-data; boundary=edge", *more: bytes) -> bytes:
    """The head of a POST /v1/restore; length None: chunked."""
    size = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    lines = [b"POST /v1/restore HTTP/1.1", b"Host: localhost", b"Content-Type: " + kind, size, *more]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def reply(connection: socket.socket) -> tuple[int, bytes]:
    """The status and everything that comes until the connection is closed; (0, b"") if nothing does."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            data += chunk
    found = re.match(rb"HTTP/1.1 (\d+)", data)
    return (int(found[1]) if found else 0), data
