"""What `maximir serve` was asked for, checked."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

from maximir.errors import UsageError
from maximir.restoring.options import Options

TOKEN = re.compile(r"[!-~]{8,}")  # printable ASCII without blanks: what fits into a header
NAME = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        host, port: where to listen; port 0: any free one.
        token: what clients must know; None: nothing.
        names: host names under which a proxy makes the service known.
        queue: jobs at most that are being sent, wait or are computed.
        max_bytes: of an uploaded image.
        max_pixels: of an image, judged by its header.
        timeout: seconds that decoding, computing and encoding may take, each.
        devices: to compute on, each with a worker process of its own.
        options: of the restorers; their device is one of `devices`.
        drain: seconds that jobs get to end after SIGTERM.
        patience: seconds after which a client must send or take at least `slowest` bytes a second.
        grace: seconds that the worker gets to give up a job, before it is killed.
        worker: the command that starts the worker process; (): the real one.
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
    drain: float = 30.0
    # Not options of the command, but tests would take too long.
    patience: float = 20.0
    slowest: int = 20_000
    grace: float = 5.0
    worker: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UsageError if this makes no sense; what concerns the device, the worker finds out."""
        if self.token is not None and not TOKEN.fullmatch(self.token):
            raise UsageError("the token must have at least 8 printable ASCII characters, and no blanks")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached from other machines: choose a secret and give it as "
                "MAXIMIR_TOKEN in the environment, or with --token"
            )
        for name in self.names:
            if not NAME.fullmatch(name):
                raise UsageError(f"{name!r} is not a host name: give it without 'https://' and port")
        for value, what in ((self.max_bytes, "--max-bytes"), (self.max_pixels, "--max-pixels")):
            if value < 1:
                raise UsageError(f"{what} must be at least 1")
        if twice := [device for device in self.devices if self.devices.count(device) > 1]:
            raise UsageError(f"--device {twice[0]} was given twice; one process has it to itself")

    def for_worker(self, device: str) -> dict[str, Any]:
        """What the worker process of a device must know."""
        return vars(self.options) | {"device": device, "max_pixels": self.max_pixels}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
