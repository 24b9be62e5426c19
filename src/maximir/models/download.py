"""Download a file: resume broken connections, check the length, write atomically.

Uses the standard library, which takes proxies and certificates from the system
(docs/decisions/0008-fetching.md).
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from maximir.errors import MaximirError
from maximir.files import reason

MAX_BYTES = 1 << 30  # of a file; the largest checkpoint has 0.3 GB
TRIES = 5  # connections in a row without new data
PAUSE = 1.0  # seconds before the second of them, doubled each time
TIMEOUT = 30.0  # seconds of silence
CHUNK = 1 << 16
AGENT = "maximir (+https://pypi.org/project/maximir)"  # some servers refuse Python's own

Report = Callable[[int, int | None], None]  # bytes present, total bytes


def download(address: str, target: Path, report: Report = lambda done, total: None) -> None:
    """Download `address` to `target`, which appears when it is complete.

    Until then the data grows in `target` + ".part". A network failure keeps that file, and the next call
    resumes it if the server still has the same version. Other failures (Ctrl-C, a full disk) remove it.

    Raises:
        MaximirError: the download failed; names the address and the reason.
        OSError: the file cannot be written.
    """
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".etag")
    keep = False
    try:
        failures = 0
        most = part.stat().st_size if part.exists() else 0
        while True:
            try:
                if fetch_once(address, part, tag, report):
                    break
                why = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != 429:
                    raise MaximirError(
                        f"{address}: the server replied {error.code} {error.reason}"
                    ) from error
                why = f"the server replied {error.code} {error.reason}"
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                cause = getattr(error, "reason", error)
                why = reason(cause) if isinstance(cause, OSError) else str(cause)
                if isinstance(cause, socket.gaierror | ConnectionRefusedError):  # a retry would not help
                    failures = TRIES
            there = part.stat().st_size if part.exists() else 0
            failures = failures + 1 if there <= most else 1
            most = max(most, there)  # without an ETag each try begins anew
            if failures >= TRIES:
                keep = there > 0
                raise MaximirError(f"{address}: cannot be fetched ({why})")
            time.sleep(PAUSE * 2 ** (failures - 1))
        part.replace(target)
    finally:
        if not keep:
            part.unlink(missing_ok=True)
            tag.unlink(missing_ok=True)


def fetch_once(address: str, part: Path, tag: Path, report: Report) -> bool:
    """Download over one connection, from the end of `part`; return True if the file is complete."""
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text("ascii", "replace")}
    try:
        reply = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except ValueError as error:  # not an address
        raise MaximirError(f"{address}: not a web address") from error
    with contextlib.closing(reply):
        if urllib.parse.urlsplit(reply.url).scheme not in ("http", "https"):
            raise MaximirError(f"{address}: redirects to {reply.url}, which is not a web address")
        if reply.status != 206:  # whole file: it has changed, or the server does not support ranges
            have = 0
        etag = reply.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            tag.write_text(etag, "ascii", "replace")
        else:
            tag.unlink(missing_ok=True)
        length = reply.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        if total is not None and total > MAX_BYTES:
            raise MaximirError(f"{address}: has {total:,} bytes, more than any checkpoint")
        with part.open("ab" if have else "wb") as file:
            report(have, total)
            while chunk := reply.read(CHUNK):
                have += len(chunk)
                if have > MAX_BYTES:
                    raise MaximirError(f"{address}: sends more than {MAX_BYTES:,} bytes")
                file.write(chunk)
                report(have, total)
    return total is None or have == total
