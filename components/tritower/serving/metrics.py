"""What the server counts, as Prometheus reads it: right with one process and with several.

Several workers count into files of one folder (the client's multiprocess mode, which PROMETHEUS_MULTIPROC_DIR switches on
before the library is loaded); whichever is asked adds them up. Counts of a worker that died stay, its gauges go.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters and gauges of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter("tritower_requests", "Requests by route and status", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "tritower_request_seconds",
            "From the first byte of a body to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.rank_seconds = Histogram("tritower_rank_seconds", "Time a search took to rank", buckets=_SECONDS, registry=own)
        self.waited_seconds = Histogram(
            "tritower_waited_seconds", "Time it waited for a thread", buckets=_SECONDS, registry=own
        )
        self.in_flight = Gauge("tritower_in_flight", "Requests not answered yet", multiprocess_mode="livesum", registry=own)
        self.ready = Gauge("tritower_ready", "Processes that take requests", multiprocess_mode="livesum", registry=own)
        self.refused = Counter("tritower_refused", "Requests refused before they were read", ["reason"], registry=own)
        self.interleaved = Counter(
            "tritower_interleaved", "Lists of two bundles: both, or a or b failed", ["result"], registry=own
        )
        self.swaps = Counter("tritower_bundle_swaps", "New bundles: taken or refused", ["result"], registry=own)
        self.bundles = Gauge(
            "tritower_bundle", "Processes that serve a bundle", ["name", "bundle"], multiprocess_mode="livesum", registry=own
        )

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        folder = os.environ.get(FOLDER)
        if not folder:
            return bytes(generate_latest(self.registry))
        together = CollectorRegistry()
        MultiProcessCollector(together, path=folder)  # type: ignore[no-untyped-call]
        return bytes(generate_latest(together))


def forget_worker(pid: int, folder: Path) -> None:
    """Take a dead worker's gauges out of the sums."""
    mark_process_dead(pid, path=str(folder))  # type: ignore[no-untyped-call]
