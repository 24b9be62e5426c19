"""The settings of `maximir serve`, validated."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maximir.errors import UsageError
from maximir.restoring.options import Options

if TYPE_CHECKING:
    from maximir.service.companion import Opened

TOKEN = re.compile(r"[!-~]{8,}")  # printable ASCII without blanks, which fits into a header
LEAST_BYTES = 1_000  # a smaller limit refuses every photograph
NAME = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Attributes:
        host, port: address to listen on; port 0: any free one.
        token: secret that clients must send; None: no token is needed.
        names: host names under which a proxy publishes the service.
        queue: maximum number of jobs that are uploaded, wait or are computed.
        max_bytes: maximum size of an uploaded image.
        max_pixels: maximum size of an image, according to its header.
        timeout: seconds for each of decoding, computing and encoding.
        devices: devices to compute on, each with its own worker process.
        options: of the restorers; each worker sets its device, one of `devices`.
        webui: also answer AUTOMATIC1111's API (`webui`).
        opened: files of `maximir open`: the service opens a browser, and ends with its page; None: neither.
        drain: seconds that jobs have to finish after SIGTERM.
        patience: seconds after which a client must send or read at least `slowest` bytes per second.
        start: seconds that the worker has to start; at least `timeout`.
        grace: seconds that the worker has to cancel a job before it is killed.
        worker: command that starts the worker process; (): the default.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    names: tuple[str, ...] = ()
    queue: int = 16
    max_bytes: int = 64_000_000
    max_pixels: int = 50_000_000
    timeout: float = 900.0
    devices: tuple[str, ...] = (Options.device,)
    options: Options = field(default_factory=Options)
    webui: bool = False
    opened: tuple[Opened, ...] | None = None
    drain: float = 30.0
    # Not command-line options: tests shorten them.
    start: float = 120.0
    patience: float = 20.0
    slowest: int = 20_000
    grace: float = 5.0
    worker: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UsageError for invalid settings; the worker checks those of its device."""
        if self.token is not None and not TOKEN.fullmatch(self.token):
            raise UsageError("the token must have at least 8 printable ASCII characters and no blanks")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached from other machines: choose a secret and give it as "
                "MAXIMIR_TOKEN in the environment, or with --token"
            )
        for name in self.names:
            if not NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r} is not a host name: give it without 'https://' and without a port"
                )
        if self.max_bytes < LEAST_BYTES:
            raise UsageError(f"--max-bytes must be at least {LEAST_BYTES:,} bytes; give a unit, as in 64MB")
        if self.max_pixels < 1:
            raise UsageError("--max-pixels must be at least 1")
        for seconds, what in ((self.timeout, "--timeout"), (self.drain, "--drain")):
            if not math.isfinite(seconds):
                raise UsageError(f"{what} must be a number of seconds, not {seconds}")
        if twice := [device for device in self.devices if self.devices.count(device) > 1]:
            raise UsageError(f"--device {twice[0]} is given twice; each device has one process")

    def for_worker(self, device: str) -> dict[str, Any]:
        """Return the settings for the worker process of a device."""
        return vars(self.options) | {"device": device, "max_pixels": self.max_pixels}


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
