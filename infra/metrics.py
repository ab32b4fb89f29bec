"""Metrics of stages for Prometheus, pushed to a Pushgateway when a stage ends.

A stage ends before anybody could scrape it, often in a pod that then disappears. A Pushgateway keeps its last numbers
for scrapes, and needs no disk of a node, as a textfile for node_exporter would.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from infra.masks import masked
from infra.settings import MetricsSettings

JOB = "penchant"
MOST_COUNTS = 100
"""Counts per stage that are sent, the first by name."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """The end of a stage.

    Args:
        status: that of the stage's report, else ``user_error`` or ``error``.
        at: second since 1970.
        failed: whether it ended without a report.
        day: start of the partition in seconds since 1970.
        seconds: of the stage's own work.
        start_seconds: from the start of the submitting task to the stage's own work, if a task submitted it.
        counts: of the report.
    """

    stage: str
    dataset: str
    recipe: str
    status: str
    at: float
    failed: bool = False
    day: float = 0.0
    seconds: float = 0.0
    start_seconds: float | None = None
    counts: Mapping[str, int | float] = field(default_factory=dict)


def push(end: StageEnd, settings: MetricsSettings) -> None:
    """Send the metrics of a stage that has ended; a problem is logged, and nothing raises.

    Metrics that the end does not have keep their last value, such as the time of the last success after a failure.
    """
    if not settings.pushgateway:
        return
    try:
        _push(end, settings)
    except Exception as error:
        _LOG.warning("metrics of %s were not sent: %s", end.stage, masked(f"{type(error).__name__}: {error}"))


def _push(end: StageEnd, settings: MetricsSettings) -> None:
    from prometheus_client.exposition import basic_auth_handler, default_handler, pushadd_to_gateway

    address = urlsplit(settings.pushgateway)
    user, password = unquote(address.username or ""), unquote(address.password or "")

    def send(**request: Any) -> Any:
        return basic_auth_handler(**request, username=user, password=password) if user else default_handler(**request)

    place = {"stage": end.stage, "dataset": end.dataset, "recipe": end.recipe}
    pushadd_to_gateway(
        address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(),
        JOB,
        registry_of(end),
        {name: value for name, value in place.items() if value},
        settings.timeout_s,
        send,
    )


def registry_of(end: StageEnd) -> Any:
    """The metrics of a stage's end, as a registry of prometheus_client."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, value: float, **labels: str) -> None:
        made = Gauge(f"penchant_stage_{name}", meaning, list(labels), registry=registry)
        (made.labels(**labels) if labels else made).set(value)

    gauge("status", "1 for the status of the last run", 1, status=end.status)
    if end.failed:
        gauge("last_failure_timestamp_seconds", "when the stage last failed", end.at)
        return registry
    gauge("last_success_timestamp_seconds", "when the stage last ended with a report", end.at)
    gauge("day_timestamp_seconds", "start of the day that the last successful run worked on", end.day)
    gauge("seconds", "wall time of the last successful run, without the engine's start", end.seconds)
    if end.start_seconds is not None:
        gauge("start_seconds", "from the start of the task to the stage's own work", end.start_seconds)
    counted = Gauge("penchant_stage_count", "counts of the last report, by name", ["count"], registry=registry)
    for name in sorted(end.counts)[:MOST_COUNTS]:
        counted.labels(name).set(float(end.counts[name]))
    return registry
