"""What the service tells Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable through which several workers' numbers are added up."""


class Metrics:
    """Numbers of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = self.registry
        self.requests = Counter(
            "reid_requests", "Requests by path and status", ["path", "status"], registry=of
        )
        self.seconds = Histogram(
            "reid_request_seconds", "Time of requests", ["path"], buckets=SECONDS, registry=of
        )
        self.model = Histogram(
            "reid_model_seconds", "Time of embedding a batch", buckets=SECONDS, registry=of
        )
        self.search = Histogram(
            "reid_search_seconds", "Time of searching for a request", buckets=SECONDS, registry=of
        )
        self.batch = Histogram(
            "reid_batch_pictures",
            "Pictures that were embedded together",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=of,
        )
        self.waiting = Gauge(
            "reid_waiting_pictures",
            "Pictures that wait for the network",
            registry=of,
            multiprocess_mode="livesum",
        )

    def text(self) -> bytes:
        """Return all numbers, those of all workers where there are several."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)
