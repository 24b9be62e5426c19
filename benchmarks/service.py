"""Put the service under load: throughput, latency, refusals, memory, and correct results for every client.

python benchmarks/service.py [--clients 1 8 64] [--seconds 60] [--size 256x256]

Each client sends its own picture repeatedly and compares the result with the library's. After 429 or 503 a
client waits for Retry-After.
"""

import argparse
import http.client
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch, as the command does

import numpy as np
import psutil

from maximir import Restorer, images
from maximir.images import Photo
from maximir.sizes import in_words, parse_pixels

EDGE = "maximir-benchmark"


@dataclass
class Count:
    """Observations of the clients in one round."""

    clients: Counter[int] = field(default_factory=Counter)  # images per client
    latencies: list[float] = field(default_factory=list)  # seconds of successful requests
    computing: list[float] = field(default_factory=list)  # seconds, as reported by the service
    refusals: list[float] = field(default_factory=list)  # seconds until the refusal
    health: list[float] = field(default_factory=list)  # seconds of /healthz
    memory: list[tuple[int, int]] = field(default_factory=list)  # bytes of the service, of its worker
    wrong: int = 0
    errors: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--task", default="denoise")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--queue", default="16")
    args = parser.parse_args()

    pictures = make_pictures(max(args.clients), *parse_pixels(args.size))
    uploads = [images.encode(Photo(picture), "png")[0] for picture in pictures]
    restorer = Restorer(args.task, precision=args.precision)
    expected, rate = restore_all(restorer, pictures)
    print(f"{args.task}, {args.size}, {args.precision}: the library computes {rate:.2f} images/s")
    del restorer
    print(
        "| clients | images | images/s | of the library's rate | of one client's computing | wrong | "
        "each client's, least–most | p50, p90, p99 (s) | told to wait | that took at most | health at most |"
    )
    print("|" + " --- |" * 11)
    computing = None
    for clients in args.clients:
        command = ["-m", "maximir", "serve", "--port", "0", "--queue", args.queue]
        with subprocess.Popen(
            [sys.executable, *command, "--precision", args.precision],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as service:
            try:
                count, seconds = load(service, clients, args, uploads, expected)
            finally:
                service.terminate()
        computing = computing or len(count.computing) / sum(count.computing)
        report(clients, count, seconds, rate, computing)


def make_pictures(number: int, height: int, width: int) -> list[np.ndarray]:
    """Make pictures of noise on waves, all different."""
    y, x = np.mgrid[:height, :width]
    pictures = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        waves = [127 + 80 * np.sin((a * x + b * y) / 40) for a, b in rng.uniform(-1, 1, (3, 2))]
        noisy = np.stack(waves, -1) + rng.normal(0, 20, (height, width, 3))
        pictures.append(noisy.clip(0, 255).astype(np.uint8))
    return pictures


def restore_all(restorer: Restorer, pictures: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Restore pictures one after the other with the library; return the results and images per second."""
    restorer(pictures[0])
    start = time.perf_counter()
    restored = [restorer(picture) for picture in pictures]
    return restored, len(pictures) / (time.perf_counter() - start)


def load(
    service: subprocess.Popen[str],
    clients: int,
    args: argparse.Namespace,
    uploads: list[bytes],
    expected: list[np.ndarray],
) -> tuple[Count, float]:
    """Run all clients at once; return their observations and the seconds this took."""
    assert service.stdout is not None
    port = int(re.search(r":(\d+),", service.stdout.readline())[1])
    post(port, uploads[0], args.task)  # loads the model
    count, lock, over = Count(), threading.Lock(), threading.Event()

    def client(number: int) -> None:
        while not over.is_set():
            start = time.perf_counter()
            status, headers, body = post(port, uploads[number], args.task)
            seconds = time.perf_counter() - start
            good = status == 200 and is_close(images.decode(body).rgb, expected[number])
            with lock:
                if status == 200:
                    count.clients[number] += 1
                    count.latencies.append(seconds)
                    count.computing.append(float(headers["x-maximir-seconds"]))
                    count.wrong += not good
                elif status in (429, 503):
                    count.refusals.append(seconds)
                else:
                    count.errors.append(f"{status} {body[:200]!r}")
            if "retry-after" in headers:
                over.wait(float(headers["retry-after"]))

    def watch() -> None:
        processes = [psutil.Process(service.pid), *psutil.Process(service.pid).children()]
        while not over.wait(0.5):
            start = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            count.health.append(time.perf_counter() - start)
            connection.close()
            count.memory.append(tuple(process.memory_info().rss for process in processes))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    threads.append(threading.Thread(target=watch))
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(args.seconds)
    over.set()
    for thread in threads:
        thread.join()
    return count, time.perf_counter() - start  # includes the last requests


def post(port: int, image: bytes, task: str) -> tuple[int, dict[str, str], bytes]:
    parts = [("task", "", task.encode()), ("image", '; filename="picture.png"', image)]
    body = b"".join(
        f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"
        for name, file, value in parts
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        headers = {"Content-Type": f"multipart/form-data; boundary={EDGE}"}
        connection.request("POST", "/v1/restore", body + f"--{EDGE}--\r\n".encode(), headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def is_close(a: np.ndarray, b: np.ndarray) -> bool:
    """Return True for the same picture: values differ by at most one level of rounding."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1


def report(clients: int, count: Count, seconds: float, rate: float, computing: float) -> None:
    done = len(count.latencies)
    least = min(count.clients[number] for number in range(clients))
    cuts = statistics.quantiles(count.latencies, n=100) if done > 1 else count.latencies * 99
    print(
        f"| {clients} | {done} | {done / seconds:.2f} | {done / seconds / rate:.0%} | "
        f"{done / seconds / computing:.0%} | {count.wrong} | {least}–{max(count.clients.values())} | "
        f"{cuts[49]:.2f}, {cuts[89]:.2f}, {cuts[98]:.2f} | {len(count.refusals)} | "
        f"{max(count.refusals, default=0):.2f} s | {max(count.health, default=0):.2f} s |"
    )
    for error in count.errors[:5]:
        print(f"  unexpected: {error}")
    at = [round(part * (len(count.memory) - 1) / 4) for part in range(5)] if count.memory else []
    words = [", ".join(in_words(count.memory[n][process]) for n in at) for process in (0, 1)]
    print(f"  memory over time: service {words[0]}; worker {words[1]}")
    steps = [b - a for (_, a), (_, b) in pairwise(count.memory[len(count.memory) // 4 :])]
    print(f"  worker's growth in the last three quarters: {sum(steps) / 1e6:+.0f} MB", flush=True)


if __name__ == "__main__":
    main()
