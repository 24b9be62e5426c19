"""Kill one replica behind nginx and drain another under load, and check that no picture is lost.

python benchmarks/replicas.py [--clients 64] [--pictures 20] [--replicas 3] [--plain]
python benchmarks/replicas.py --minutes 10  # instead of a number of pictures; as root, on Linux

nginx runs with hosts/nginx/replicas.conf on its own ports. Each client sends its own picture repeatedly,
until it comes back restored, by the rules of docs/service.md: after a 429 or 503 it waits for Retry-After,
after a 502, 504 or a broken connection for one second. Each result is compared with the library's. When a
fifth of all pictures is done, one replica is killed (signal 9, with its worker, as when a node is lost) and
started again five seconds later. When half is done, another one gets SIGTERM and is not replaced.

With --minutes, all clients send until the time is over. A replica is killed every minute, the others in turn;
each comes back. Every eighth picture is longer than the service keeps in memory, and the last replica's
disk for these is full during the middle third. Also prints the worst client's share of the mean.
"""

import argparse
import contextlib
import http.client
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch, as the command does
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import psutil

from helpers.nginx import Nginx, free_port
from maximir import Restorer, images
from maximir.images import Photo
from maximir.sizes import parse_pixels
from service import is_close, make_pictures, post

KILL_AT, DRAIN_AT, BACK_AFTER = 0.2, 0.5, 5.0
KILL_EVERY = 60  # seconds
LONG = 5 << 18  # bytes behind a picture: it goes to the disk
MOST_TRIES = 200  # per picture; after that it is lost


def start(port: int, scratch: Path | None = None) -> subprocess.Popen[str]:
    """Start a replica and return it once it serves."""
    command = [sys.executable, "-m", "maximir", "serve", "--port", str(port)]
    command += ["--scratch", str(scratch)] if scratch is not None else []
    replica = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert replica.stdout is not None
    if not replica.stdout.readline():
        raise SystemExit(f"no replica at port {port}")
    return replica


def kill(replica: subprocess.Popen[str]) -> None:
    """Kill all processes of a replica at once, as when a node is lost."""
    process = psutil.Process(replica.pid)
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    replica.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=20, help="per client")
    parser.add_argument("--minutes", type=float, help="instead of --pictures; with kills and a full disk")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--plain", action="store_true", help="nginx passes every failure on to the client")
    parser.add_argument("--task", default="denoise")
    args = parser.parse_args()
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    total = args.clients * args.pictures
    pictures = make_pictures(args.clients, *parse_pixels(args.size))
    uploads = [images.encode(Photo(picture), "png")[0] for picture in pictures]
    restorer = Restorer(args.task, precision="fp32")
    expected = [restorer(picture) for picture in pictures]
    del restorer
    ports = [free_port() for _ in range(args.replicas)]
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        disk = stack.enter_context(small_disk(Path(name) / "disk")) if args.minutes else None
        replicas: list[subprocess.Popen[str]] = []
        try:
            for port in ports:
                replicas.append(start(port, disk if port == ports[-1] else None))
            for port in ports:
                post(port, uploads[0], args.task)  # loads the model
            with Nginx(Path(name), ports, plain=args.plain) as nginx:
                if args.minutes:
                    endure(args, nginx.port, ports, replicas, uploads, expected, disk)
                else:
                    run(args, nginx.port, ports, replicas, uploads, expected, total)
        finally:
            for replica in replicas:
                if replica.poll() is None:
                    kill(replica)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a disk of 64 MB, from a file: the service refuses disks in memory."""
    place.mkdir()
    image = place.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


class Load:
    """Pictures that clients send until they come back restored, and counts of what they saw."""

    def __init__(self, port: int, task: str, uploads: list[bytes], expected: list[np.ndarray]) -> None:
        self.port, self.task, self.uploads, self.expected = port, task, uploads, expected
        self.seen: Counter[str] = Counter()
        self.by_client: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.lock = threading.Lock()

    def restore(self, number: int, more: bytes = b"") -> None:
        """Send a client's picture, with further bytes behind it, until it comes back."""
        began = time.monotonic()
        for _ in range(MOST_TRIES):
            try:
                status, headers, body = post(self.port, self.uploads[number] + more, self.task)
                what = str(status)
            except (OSError, http.client.HTTPException):  # includes truncated replies
                what, headers, body = "broken", {}, b""
            with self.lock:
                self.seen[what] += 1
            if what == "200":
                good = is_close(images.decode(body).rgb, self.expected[number])
                with self.lock:
                    self.seen["good" if good else "wrong"] += 1
                    self.by_client[number] += good
                    self.seconds.append(time.monotonic() - began)
                return
            if what not in ("429", "502", "503", "504", "507", "broken"):
                print(f"unexpected: {what} {body[:200]!r}")
                break
            time.sleep(float(headers.get("retry-after", "1")))
        with self.lock:
            self.seen["lost"] += 1


def endure(
    args: argparse.Namespace,
    port: int,
    ports: list[int],
    replicas: list[subprocess.Popen[str]],
    uploads: list[bytes],
    expected: list[np.ndarray],
    disk: Path,
) -> None:
    load = Load(port, args.task, uploads, expected)
    began = time.monotonic()
    seconds = 60 * args.minutes

    def client(number: int) -> None:
        for count in itertools.count(number):
            if time.monotonic() - began > seconds:
                return
            load.restore(number, bytes(LONG) if count % 8 == 0 else b"")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(args.clients)]
    for thread in threads:
        thread.start()
    kills = 0
    filler = disk / "filler"
    while (now := time.monotonic() - began) < seconds:
        if now > (kills + 1) * KILL_EVERY:
            chosen = kills % (args.replicas - 1)  # not the one with the full disk
            kill(replicas[chosen])
            time.sleep(BACK_AFTER)
            replicas[chosen] = start(ports[chosen])
            kills += 1
        full = seconds / 3 < now < 2 * seconds / 3
        if full:
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        else:
            filler.unlink(missing_ok=True)
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    counts = [load.by_client[number] for number in range(args.clients)]
    cuts, seen = statistics.quantiles(load.seconds, n=100), load.seen
    times = ", ".join(f"{cuts[part]:.1f}" for part in (49, 89, 98))
    print(
        f"{args.clients} clients, {args.minutes:g} minutes, {args.replicas} replicas, {kills} killed, "
        f"one disk full for {seconds / 3:.0f} s"
    )
    print(f"{seen['good']} restored, {seen['lost']} lost, {seen['wrong']} wrong; p50, p90, p99: {times} s")
    print(", ".join(f"{what}: {seen[what]}" for what in ("429", "502", "503", "504", "507", "broken")))
    print(
        f"the worst client's share of the mean: {min(counts) / statistics.mean(counts):.2f} ({min(counts)})"
    )
    print(f"the best client's: {max(counts) / statistics.mean(counts):.2f}")
    if seen["lost"] or seen["wrong"]:
        raise SystemExit(1)


def run(
    args: argparse.Namespace,
    port: int,
    ports: list[int],
    replicas: list[subprocess.Popen[str]],
    uploads: list[bytes],
    expected: list[np.ndarray],
    total: int,
) -> None:
    load = Load(port, args.task, uploads, expected)
    seen, seconds = load.seen, load.seconds

    def client(number: int) -> None:
        for _ in range(args.pictures):
            load.restore(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(args.clients)]
    clock = time.monotonic()
    for thread in threads:
        thread.start()
    wait_for(seen, KILL_AT * total)
    before = seen["200"]
    kill(replicas[0])
    killed = time.monotonic() - clock
    time.sleep(BACK_AFTER)
    replicas[0] = start(ports[0])
    while_down = seen["200"] - before
    wait_for(seen, DRAIN_AT * total)
    replicas[1].send_signal(signal.SIGTERM)
    drained = time.monotonic()
    code = replicas[1].wait()
    drained_in = time.monotonic() - drained
    left_then = total - seen["good"]
    for thread in threads:
        thread.join()
    took = time.monotonic() - clock
    cuts = statistics.quantiles(seconds, n=100)
    print(f"{args.clients} clients, {args.pictures} pictures of {args.size} each, {args.replicas} replicas")
    print(f"one killed after {killed:.1f} s, back later; {while_down} pictures were restored meanwhile")
    print(f"one drained: exit status {code} after {drained_in:.1f} s, with {left_then} pictures to go")
    heads = (
        "pictures | restored | lost | wrong | images/s | p50, p90, p99 (s) | 429 | 503 | 502, 504 | broken"
    )
    print(f"| {heads} |")
    print("|" + " --- |" * 10)
    times = ", ".join(f"{cuts[part]:.1f}" for part in (49, 89, 98))
    restored, lost, proxied = seen["good"], total - seen["good"] - seen["wrong"], seen["502"] + seen["504"]
    print(
        f"| {total} | {restored} | {lost} | {seen['wrong']} | {total / took:.1f} | {times} | "
        f"{seen['429']} | {seen['503']} | {proxied} | {seen['broken']} |"
    )
    if seen["good"] < total or code != 0:
        raise SystemExit(1)


def wait_for(seen: Counter[str], count: float) -> None:
    while seen["200"] < count:
        time.sleep(0.02)


if __name__ == "__main__":
    main()
