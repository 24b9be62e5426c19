"""Metrics that `/metrics` reports to Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


class State(NamedTuple):
    """Functions that return the current state of a queue, one number each."""

    taken: Callable[[], float]
    places: Callable[[], float]
    leaving: Callable[[], float]
    awaited: Callable[[], float]
    ready: Callable[[], float]
    memory: Callable[[], float]


class Metrics:
    """Metrics of one service, in their own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "maximir_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.received = Counter("maximir_received_bytes", "Bytes received in bodies.", registry=registry)
        self.sent = Counter("maximir_sent_bytes", "Bytes sent in bodies.", registry=registry)
        self.jobs = Counter("maximir_jobs", "Images by outcome.", ("task", "outcome"), registry=registry)
        self.pixels = Counter("maximir_pixels", "Pixels restored, including padding.", registry=registry)
        self.seconds = Histogram(
            "maximir_computing_seconds",
            "Computation per image.",
            ("task",),
            buckets=SECONDS,
            registry=registry,
        )
        self.waited = Histogram(
            "maximir_waiting_seconds",
            "Wait between upload and computation.",
            buckets=SECONDS,
            registry=registry,
        )
        self.starts = Counter("maximir_worker_starts", "Worker processes started.", registry=registry)

    def watch(self, state: State) -> None:
        """Register gauges that read a queue's state at every scrape."""
        for name, text, value in (
            ("maximir_places_taken", "Uploads, waiting images and images in workers.", state.taken),
            ("maximir_places", "Places in the queue.", state.places),
            ("maximir_results_leaving", "Results being sent.", state.leaving),
            (
                "maximir_clients_awaited",
                "Clients with a Retry-After that may still return.",
                state.awaited,
            ),
            ("maximir_worker_up", "Worker processes that are ready.", state.ready),
            ("maximir_worker_memory_bytes", "Resident memory of the worker processes.", state.memory),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def answered(self, method: str, route: str, status: int, received: int, sent: int) -> None:
        self.requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self.received.inc(received)
        self.sent.inc(sent)

    def text(self) -> bytes:
        return generate_latest(self.registry)
