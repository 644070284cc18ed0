"""What ``/metrics`` reports, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Requests, their latency, and the sizes of batches and of the queue.

    Args:
        waiting: gives the number of questions that wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "arm_lens_requests", "Requests, by path and status.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "arm_lens_request_seconds", "Time to answer a request.", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "arm_lens_batch_questions", "Questions in a batch.", buckets=SIZES, registry=self.registry
        )
        queue = Gauge("arm_lens_queue_questions", "Questions that wait.", registry=self.registry)
        queue.set_function(waiting)

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return generate_latest(self.registry)
