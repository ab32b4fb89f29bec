"""Metrics of the server for Prometheus: the gate's own, and what it last heard from the replicas.

Labels have few values: no part of a request is one, besides the paths that the server has.
"""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "penchant_serving_"
ROUTES = ("/recommend", "/health", "/version", "/metrics")
OTHER = "other"
GONE = 499
"""Status of a request whose client left before it was complete or answered."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FORGET_S = 300.0
"""Seconds after which a replica that has not told anything is left out."""
REPLICA_GAUGES = {
    "model_loaded_timestamp_seconds": "when the replica loaded the version that it serves",
    "alias_read_timestamp_seconds": "when the replica last read the alias from the registry",
    "jobs_waiting": "requests and list entries waiting for the model",
}
REPLICA_COUNTERS = {
    "swaps": "versions that replaced another one",
    "load_failures": "versions that did not load or did not answer trial requests",
    "registry_failures": "reads of the alias that failed",
    "batches": "batches that the model answered",
    "batched_jobs": "requests and list entries in these batches",
    "model_seconds": "time that the model took for these batches",
    "failed_answers": "answers that failed without the client's fault",
}


class Told:
    """The status of a request; `GONE` until an answer begins."""

    status = GONE


class ServerMetrics:
    """The numbers of one proxy's gate."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(f"{PREFIX}requests", "answered requests", ("route", "status"), registry=self._registry)
        self._seconds = Histogram(
            f"{PREFIX}request_seconds",
            "from the head of a request to the end of its answer",
            ("route",),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._open = Gauge(
            f"{PREFIX}requests_in_progress", "requests that are not answered yet", registry=self._registry
        )
        self._replicas: dict[str, tuple[float, str, dict[str, float]]] = {}
        self._registry.register(self)  # type: ignore[arg-type]

    @contextmanager
    def request(self, path: str) -> Iterator[Told]:
        """Count a request and its time when the block ends."""
        route, told, began = path.rstrip("/"), Told(), time.perf_counter()
        route = route if route in ROUTES else OTHER
        with self._open.track_inprogress():
            try:
                yield told
            finally:
                self._requests.labels(route, str(told.status)).inc()
                self._seconds.labels(route).observe(time.perf_counter() - began)

    def hear(self, body: bytes) -> None:
        """Take what a replica tells, a JSON object with its name, version and numbers; ignore anything else."""
        try:
            found = json.loads(body)
            numbers = {name: float(found[name]) for name in (*REPLICA_GAUGES, *REPLICA_COUNTERS)}
            self._replicas[str(found["replica"])] = (time.monotonic(), str(found["model_version"]), numbers)
        except (ValueError, KeyError, TypeError):
            return

    def text(self) -> bytes:
        """All in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Called by the registry: the replicas' numbers."""
        heard = time.monotonic() - FORGET_S
        self._replicas = {name: told for name, told in self._replicas.items() if told[0] > heard}
        info = GaugeMetricFamily(
            "penchant_serving_model_info",
            "1 for the version that the replica serves",
            labels=("replica", "model_version"),
        )
        for replica, (_, version, _) in self._replicas.items():
            info.add_metric((replica, version), 1)
        yield info
        families = ((GaugeMetricFamily, REPLICA_GAUGES), (CounterMetricFamily, REPLICA_COUNTERS))
        for family, meanings in families:
            for name, meaning in meanings.items():
                metric = family(f"{PREFIX}{name}", meaning, labels=("replica",))
                for replica, (_, _, numbers) in self._replicas.items():
                    metric.add_metric((replica,), numbers[name])
                yield metric
