"""A worker process as the service sees it: start, send, receive, kill."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import BinaryIO

from maximir.files import reason
from maximir.service import wire
from maximir.service.spool import open_spooled

# -P: do not import modules from the current folder.
COMMAND = (sys.executable, "-P", "-m", "maximir.service.worker")
CHUNK = 1 << 18  # bytes
LONGEST_END = 1.0  # seconds between the worker's last message and its exit


class Worker:
    """One worker process, created by `Worker.start`."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process, self.orders, self.replies = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, command: Sequence[str], settings: wire.Message) -> Worker:
        """Start the process and send it the settings. It shares our standard error.

        Raises:
            OSError: the program does not exist, or no further process can be started.
        """
        worker = cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=CHUNK))
        await worker.send(settings)
        return worker

    @property
    def pid(self) -> int:
        return self.process.pid

    async def send(self, message: wire.Message, *bodies: tuple[BinaryIO, int]) -> None:
        """Send a message, and files with sizes. Ignore a worker that has ended: `receive` reports it."""
        with contextlib.suppress(ConnectionError):
            self.orders.write(wire.head(message, sum(size for _, size in bodies)))
            for body, size in bodies:
                body.seek(0)
                left = size
                while left > 0:
                    chunk = body.read(min(CHUNK, left))
                    if not chunk:
                        raise EOFError("the upload is shorter than it was")
                    self.orders.write(chunk)
                    left -= len(chunk)
                    await self.orders.drain()
            await self.orders.drain()

    async def receive(self) -> tuple[wire.Message, BinaryIO | str | None] | None:
        """Return the next message and its file, if any: open, or the reason why it could not be stored.

        Returns None after the process has ended.

        Raises:
            ValueError: the data is not a message.
        """
        try:
            line = await self.replies.readuntil(b"\n")
            message, size = wire.parse(line)
            return message, (await self.spool(size) if size else None)
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError as error:
            raise ValueError("not a message") from error

    async def spool(self, size: int) -> BinaryIO | str:
        """Store the next `size` bytes in an unnamed file, in memory if small; on errors still read them."""
        file = open_spooled()
        problem = None
        try:
            while size > 0:
                chunk = await self.replies.read(min(CHUNK, size))
                if not chunk:
                    raise asyncio.IncompleteReadError(b"", size)
                size -= len(chunk)
                try:
                    if problem is None:
                        file.write(chunk)
                except OSError as error:
                    problem = reason(error)
            try:
                file.seek(0)  # flushes
            except OSError as error:
                problem = problem or reason(error)
            if problem is None:
                return file
        except BaseException:  # includes cancellation: close the file and re-raise
            file.close()
            raise
        with contextlib.suppress(OSError):
            file.close()
        return problem

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def wait(self) -> int:
        """Return the exit status, negative for a signal; kill the process if it does not end soon."""
        try:
            async with asyncio.timeout(LONGEST_END):
                return await self.process.wait()
        except TimeoutError:
            self.kill()
            return await self.process.wait()
