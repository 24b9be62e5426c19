"""What `/metrics` tells Prometheus."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from maximir.service.queue import Queue

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "maximir_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.received = Counter("maximir_received_bytes", "Bytes of bodies received.", registry=registry)
        self.sent = Counter("maximir_sent_bytes", "Bytes of bodies sent.", registry=registry)
        self.jobs = Counter(
            "maximir_jobs", "Images, by how they ended.", ("task", "outcome"), registry=registry
        )
        self.pixels = Counter("maximir_pixels", "Pixels restored, with padding.", registry=registry)
        self.seconds = Histogram(
            "maximir_computing_seconds", "Computing, an image.", ("task",), buckets=SECONDS, registry=registry
        )
        self.waited = Histogram(
            "maximir_waiting_seconds", "From the upload to computing.", buckets=SECONDS, registry=registry
        )
        self.starts = Counter("maximir_worker_starts", "Worker processes started.", registry=registry)

    def watch(self, queue: Queue) -> None:
        """Show a queue's state whenever it is asked for."""
        for name, text, value in (
            ("maximir_places_taken", "Uploads, waiting images and images in work.", lambda: queue.taken),
            ("maximir_places", "The most there can be.", lambda: queue.settings.queue),
            ("maximir_results_leaving", "Results that are being sent.", lambda: queue.leaving),
            ("maximir_worker_up", "Worker processes that are ready.", lambda: ready(queue)),
            ("maximir_worker_memory_bytes", "Resident memory of the workers.", lambda: memory(queue)),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def answered(self, method: str, route: str, status: int, received: int, sent: int) -> None:
        self.requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self.received.inc(received)
        self.sent.inc(sent)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def ready(queue: Queue) -> int:
    return sum(keeper.ready for keeper in queue.keepers)


def memory(queue: Queue) -> int:
    total = 0
    for keeper in queue.keepers:
        with contextlib.suppress(psutil.Error):
            if keeper.worker is not None:
                total += psutil.Process(keeper.worker.pid).memory_info().rss
    return total
