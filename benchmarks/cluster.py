"""Compare the estimates of `maximir plan-cluster` with 1, 2 and 4 worker processes on this machine.

python benchmarks/cluster.py [--rounds 3]

The workers are processes with one computing thread each and the real pipeline. They exchange photographs and
results with a store on loopback: a server with limited bandwidth and with latency, which also hands out the
work. In four cases the limit is the store's latency, its bandwidth, the driver, or computing (there with at
most as many workers as processors). The computing time is measured before and after by a single process, so
other work on the machine in between shows as a difference. The clock starts when all workers are ready. No
worker is lost; tests/test_cluster.py compares the cost of losses with theory.
"""

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch, as the command does

import numpy as np

from maximir import Restorer, images
from maximir.batch import pipeline
from maximir.batch.pipeline import Work
from maximir.cluster import Cluster, Kind, simulate
from maximir.images import Photo

KEEP = {"start": 0.0, "losses": 0.0, "listing": 1e9}
CASES = {
    "latency": dict(sides=[64], count=100, bandwidth=1e9, link=1e9, latency=0.4, handing=0.0),
    "bandwidth": dict(sides=[64], count=160, bandwidth=110e3, link=1e9, latency=0.15, handing=0.0),
    "driver": dict(sides=[64], count=60, bandwidth=1e9, link=1e9, latency=0.4, handing=0.18),
    "computing": dict(sides=[192, 256], count=32, bandwidth=1e9, link=1e9, latency=0.05, handing=0.0),
}
TASK = "denoise"


def make_picture(number: int, sides: list[int]) -> bytes:
    """Encode noise as PNG, so that all files have the same number of bytes per pixel."""
    side = sides[number % len(sides)]
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    return images.encode(Photo(pixels), "png")[0]


class Store(ThreadingHTTPServer):
    """Serves the photographs, takes the results, and hands out the work."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, pictures: list[bytes], workers: int, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.pictures, self.cluster = pictures, cluster
        self.handed, self.written = 0, set[int]()
        self.ready = threading.Barrier(workers, action=self.begin)
        self.done = threading.Event()
        self.lock, self.driver = threading.Lock(), threading.Lock()
        self.free = {"GET": 0.0, "PUT": 0.0}
        self.sizes: list[int] = []

    def begin(self) -> None:
        self.began = time.monotonic()

    def move(self, method: str, size: int) -> None:
        """Sleep as long as a transfer takes, including the transfers before it."""
        with self.lock:
            began = max(time.monotonic() + self.cluster.latency, self.free[method])
            self.free[method] = began + size / self.cluster.bandwidth
            until = max(self.free[method], began + size / self.cluster.link)
        time.sleep(max(0.0, until - time.monotonic()))

    def next(self) -> int:
        with self.driver:
            if self.handed == len(self.pictures):
                return -1
            time.sleep(self.cluster.handing)
            self.handed += 1
            return self.handed - 1


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Store

    def answer(self, body: bytes = b"") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/ready":
            self.server.ready.wait()
            self.answer()
        elif self.path == "/next":
            self.answer(str(self.server.next()).encode())
        else:
            picture = self.server.pictures[int(self.path[1:])]
            self.server.move("GET", len(picture))
            self.answer(picture)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.move("PUT", len(body))
        self.server.written.add(int(self.path[1:]))
        self.server.sizes.append(len(body))
        if len(self.server.written) == len(self.server.pictures):
            self.server.ended = time.monotonic()
            self.server.done.set()
        self.answer()

    def log_message(self, *arguments: object) -> None:
        pass


def work(port: int, count: int) -> None:
    """Run one worker until no work is left."""
    restorer = Restorer(TASK, precision="fp32")
    for side in (64, 192, 256):
        restorer(np.zeros((side, side, 3), np.uint8))
    lines = [http.client.HTTPConnection("127.0.0.1", port, timeout=600) for _ in range(2)]

    def ask(line: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> bytes:
        line.request(method, path, body)
        return line.getresponse().read()

    def read(job: list[int]) -> Work[list[int]]:
        number = int(ask(lines[0], "GET", "/next"))
        if number < 0:
            return Work(job, error="no work is left")
        job.append(number)
        return Work(job, images.decode(ask(lines[0], "GET", f"/{number}")))

    def finish(done: Work[list[int]]) -> None:
        if done.photo is not None:
            ask(lines[1], "PUT", f"/{done.job[0]}", images.encode(done.photo, "png")[0])
            done.photo = None

    ask(lines[0], "GET", "/ready")
    jobs: list[list[int]] = [[] for _ in range(count)]
    for _ in pipeline.run(jobs, read, restorer.restore_photo, finish):
        pass


def measure(pictures: list[bytes], workers: int, cluster: Cluster) -> tuple[float, float]:
    """Return the seconds from all workers being ready to the last result, and the bytes of a result."""
    with Store(pictures, workers, cluster) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        command = [sys.executable, __file__, "--work", str(store.server_port), str(len(pictures))]
        children = [subprocess.Popen(command) for _ in range(workers)]
        while not store.done.wait(1):
            if any(child.poll() for child in children):
                raise SystemExit("a worker failed")
        for child in children:
            child.wait()
        store.shutdown()
        return store.ended - store.began, statistics.mean(store.sizes)


def time_one(restorer: Restorer, side: int) -> float:
    """Return the mean seconds to compute one image."""
    photo = Photo(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    restorer.restore_photo(photo)
    times = max(5, 60_000 // side**2)
    clock = time.perf_counter()
    for _ in range(times):
        restorer.restore_photo(photo)
    return (time.perf_counter() - clock) / times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--work", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    restorer = Restorer(TASK, precision="fp32")
    cores = os.cpu_count() or 1
    print("| case | workers | simulated (s) | measured (s) | difference | load average | the limit |")
    print("|" + " --- |" * 7)
    differences = []
    for name in args.cases:
        case = dict(CASES[name])
        sides, count = case.pop("sides"), case.pop("count")
        pictures = [make_picture(number, sides) for number in range(count)]
        megapixels = statistics.mean(side**2 for side in sides) / 1e6
        size = statistics.mean(map(len, pictures))
        for workers in [1, 2, 4]:
            if name == "computing" and workers > cores:
                continue
            estimated, measured = [], []
            for _ in range(args.rounds):
                cluster = Cluster(read=size / megapixels, written=size / megapixels, **case, **KEEP)
                before = [time_one(restorer, side) for side in sides]
                seconds, written = measure(pictures, workers, cluster)
                measured.append(seconds)
                after = [time_one(restorer, side) for side in sides]
                kinds = [
                    Kind(side**2, 1, (a + b) / 2) for side, a, b in zip(sides, before, after, strict=True)
                ]
                cluster = Cluster(read=size / megapixels, written=written / megapixels, **case, **KEEP)
                outcome = simulate(kinds, count, workers, cluster)
                estimated.append(outcome.seconds)
            a, b = statistics.median(estimated), statistics.median(measured)
            differences.append(abs(a / b - 1))
            spread = f"{min(measured):.1f}–{max(measured):.1f}"
            print(
                f"| {name} | {workers} | {a:.1f} | {b:.1f} ({spread}) | {a / b - 1:+.0%} | "
                f"{os.getloadavg()[0]:.1f} | {outcome.limit} |",
                flush=True,
            )
    print(
        f"the largest difference: {max(differences):.0%}; medians of {args.rounds} rounds, {cores} processors"
    )


if __name__ == "__main__":
    main()
