"""Kill one replica behind nginx and drain another under load, and check that no picture is lost.

python benchmarks/replicas.py [--clients 64] [--pictures 20] [--replicas 3] [--plain]

nginx runs with hosts/nginx/replicas.conf on its own ports. Each client sends its own picture repeatedly,
until it comes back restored, by the rules of docs/service.md: after a 429 or 503 it waits for Retry-After,
after a 502, 504 or a broken connection for one second. Each result is compared with the library's. When a
fifth of all pictures is done, one replica is killed (signal 9, with its worker, as when a node is lost) and
started again five seconds later. When half is done, another one gets SIGTERM and is not replaced.
"""

import argparse
import contextlib
import http.client
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
MOST_TRIES = 200  # per picture; after that it is lost


def start(port: int) -> subprocess.Popen[str]:
    """Start a replica and return it once it serves."""
    command = [sys.executable, "-m", "maximir", "serve", "--port", str(port)]
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
    with tempfile.TemporaryDirectory() as name:
        replicas = [start(port) for port in ports]
        try:
            for port in ports:
                post(port, uploads[0], args.task)  # loads the model
            with Nginx(Path(name), ports, plain=args.plain) as nginx:
                run(args, nginx.port, ports, replicas, uploads, expected, total)
        finally:
            for replica in replicas:
                if replica.poll() is None:
                    kill(replica)


def run(
    args: argparse.Namespace,
    port: int,
    ports: list[int],
    replicas: list[subprocess.Popen[str]],
    uploads: list[bytes],
    expected: list[np.ndarray],
    total: int,
) -> None:
    seen: Counter[str] = Counter()
    seconds: list[float] = []
    lock = threading.Lock()

    def client(number: int) -> None:
        for _ in range(args.pictures):
            began = time.monotonic()
            for _ in range(MOST_TRIES):
                try:
                    status, headers, body = post(port, uploads[number], args.task)
                    what = str(status)
                except (OSError, http.client.HTTPException):  # includes truncated replies
                    what, headers, body = "broken", {}, b""
                with lock:
                    seen[what] += 1
                if what == "200":
                    good = is_close(images.decode(body).rgb, expected[number])
                    with lock:
                        seen["good" if good else "wrong"] += 1
                        seconds.append(time.monotonic() - began)
                    break
                if what not in ("429", "502", "503", "504", "broken"):
                    print(f"unexpected: {what} {body[:200]!r}")
                    break
                time.sleep(float(headers.get("retry-after", "1")))

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
