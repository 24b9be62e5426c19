"""The worker process, as the service sees it: started, spoken to, killed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import BinaryIO, cast

from maximir.files import reason
from maximir.service import wire

# -P: no module from the folder where the service was started.
COMMAND = (sys.executable, "-P", "-m", "maximir.service.worker")
CHUNK = 1 << 18  # bytes
LONGEST_END = 1.0  # seconds from its last word to its end
IN_MEMORY = 1 << 20  # bytes of a file, before it goes to disk


class Worker:
    """One worker process. `Worker.start` makes it."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process, self.orders, self.replies = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, command: Sequence[str], settings: wire.Message) -> Worker:
        """Start it and tell it the settings. Its standard error is ours.

        Raises:
            OSError: there is no such program, or no room for another process.
        """
        worker = cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=CHUNK))
        await worker.send(settings)
        return worker

    @property
    def pid(self) -> int:
        return self.process.pid

    async def send(self, message: wire.Message, body: BinaryIO | None = None, size: int = 0) -> None:
        """Send a message with `size` bytes of a file. If the worker is gone, nothing: `receive` will tell."""
        with contextlib.suppress(ConnectionError):
            self.orders.write(wire.head(message, size))
            if body is not None:
                body.seek(0)
            while size > 0 and body is not None:
                chunk = body.read(min(CHUNK, size))
                if not chunk:
                    raise EOFError("the upload is shorter than it was")
                self.orders.write(chunk)
                size -= len(chunk)
                await self.orders.drain()
            await self.orders.drain()

    async def receive(self) -> tuple[wire.Message, BinaryIO | str | None] | None:
        """The next message, and the file that belongs to it, if any: open, or why it could not be kept.

        None when the process has ended.

        Raises:
            ValueError: what came is no message.
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
        """The next bytes as a file without a name, in memory if small; they are read in any case."""
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115 (the caller closes it)
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
                file.seek(0)  # writes what is left
            except OSError as error:
                problem = problem or reason(error)
            if problem is None:
                return file
        except BaseException:  # also when cancelled: passed on, but no file stays open
            file.close()
            raise
        with contextlib.suppress(OSError):
            file.close()
        return problem

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def wait(self) -> int:
        """Wait for its end, but not for long: the exit status; negative: the signal that ended it."""
        try:
            async with asyncio.timeout(LONGEST_END):
                return await self.process.wait()
        except TimeoutError:
            self.kill()
            return await self.process.wait()
