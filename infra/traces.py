"""OpenTelemetry traces of stages: a span for each stage, with a child for each phase.

Nothing is imported and nothing is sent unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``
is set; the exporter reads its other settings from OpenTelemetry's own variables, too. The variable ``TRACEPARENT`` (W3C
Trace Context) names the span that a stage belongs to. Airflow's tasks set it, so all stages of a run share a trace.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from infra import masks

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

TRACEPARENT = "TRACEPARENT"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
TIMEOUT_S = 5.0
"""Seconds after which an export is given up, unless ``OTEL_EXPORTER_OTLP_TIMEOUT`` says otherwise."""
Fact = str | int | float
_LOG = logging.getLogger(__name__)


class _Trace:
    """What this process sends, and the span that spans of new threads belong to."""

    def __init__(self, provider: "TracerProvider", tracer: "Tracer") -> None:
        self.provider, self.tracer = provider, tracer
        self.root: Context | None = None


_known: dict[str, _Trace | None] = {}
_current: list[_Trace] = []


def enabled() -> bool:
    """Whether the environment names a receiver of traces."""
    return _first(ENDPOINTS) != "" and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def airflow_environment() -> dict[str, str]:
    """Variables with which Airflow sends the spans of runs and tasks to the same receiver; empty if there is none."""
    if not enabled():
        return {}
    exporter = "otlp_proto_grpc" if _grpc() else "otlp_proto_http"
    return {
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "AIRFLOW__TRACES__OTEL_SERVICE": "airflow",
        "OTEL_TRACES_EXPORTER": exporter,
    }


@contextmanager
def root(
    name: str, *, service: str, facts: Mapping[str, Fact], parent: str | None = None, began: float | None = None
) -> Iterator[None]:
    """The span of this process's work; its spans are sent when it ends. Nothing raises because of it.

    Args:
        service: ``service.name``, unless the environment names one.
        facts: attributes.
        parent: a ``traceparent``; by default the variable's.
        began: second since 1970 at which the span starts; now by default.
    """
    trace = _trace(service) if enabled() else None
    if trace is None or _current:
        with span(name, facts):
            yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = os.environ.get(TRACEPARENT, "") if parent is None else parent
    above = TraceContextTextMapPropagator().extract({"traceparent": given})
    _current.append(trace)
    try:
        with _span(trace, name, facts, above, began):
            yield
    finally:
        _current.pop()
        trace.root = None
        try:
            trace.provider.force_flush(int(TIMEOUT_S * 1000))
        except Exception as error:
            _LOG.warning("traces were not sent: %s", masks.masked(f"{type(error).__name__}: {error}"))


@contextmanager
def span(name: str, facts: Mapping[str, Fact] | None = None) -> Iterator[None]:
    """A child of the current span; nothing outside of `root`.

    Args:
        facts: attributes, read when the span ends.
    """
    if not _current:
        yield
        return
    with _span(_current[-1], name, {} if facts is None else facts, _above(_current[-1]), None):
        yield


def add(name: str, began: float, ended: float) -> None:
    """Add a child of the current span that has ended, with times in seconds since 1970; nothing outside of `root`."""
    if _current:
        trace = _current[-1]
        trace.tracer.start_span(name, context=_above(trace), start_time=_nanoseconds(began)).end(_nanoseconds(ended))


def traceparent() -> str:
    """The current span for another process, in W3C's form; empty outside of `root`."""
    if not _current:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context=_above(_current[-1]))
    return carrier.get("traceparent", "")


@contextmanager
def _span(
    trace: _Trace, name: str, facts: Mapping[str, Fact], above: "Context | None", began: float | None
) -> Iterator["Span"]:
    from opentelemetry.trace import Status, StatusCode, set_span_in_context, use_span

    start = None if began is None else _nanoseconds(began)
    made = trace.tracer.start_span(masks.masked(name), context=above, start_time=start)
    if trace.root is None:
        trace.root = set_span_in_context(made)
    try:
        with use_span(made, record_exception=False, set_status_on_exception=False):
            yield made
    except BaseException as error:
        # Not the event that the SDK would record: its traceback is not masked.
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        made.set_status(Status(StatusCode.ERROR, masks.masked(problem)[:300]))
        raise
    finally:
        made.set_attributes({key: masks.masked(v) if isinstance(v, str) else float(v) for key, v in facts.items()})
        made.end()


def _above(trace: _Trace) -> "Context | None":
    """The context of the current span; in a thread without one, that of the root."""
    from opentelemetry.trace import get_current_span

    return None if get_current_span().get_span_context().is_valid else trace.root


def _trace(service: str) -> _Trace | None:
    """The service's tracer in this process; None, after a warning, if a package is missing or a variable is wrong."""
    if service not in _known:
        try:
            _known[service] = _connected(service)
        except Exception as error:
            problem = masks.masked(f"{type(error).__name__}: {error}")
            _LOG.warning("%s is set, and there are no traces: %s", " or ".join(ENDPOINTS), problem)
            _known[service] = None
    return _known[service]


def _connected(service: str) -> _Trace:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    headers = _first(HEADERS).split(",")
    masks.hide([header.partition("=")[2] for header in headers])
    exporter: Any = import_module(
        f"opentelemetry.exporter.otlp.proto.{'grpc' if _grpc() else 'http'}.trace_exporter"
    ).OTLPSpanExporter
    known = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if known else {"service.name": service}))
    timeout = {} if os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT") else {"timeout": TIMEOUT_S}
    provider.add_span_processor(BatchSpanProcessor(exporter(**timeout)))
    return _Trace(provider, provider.get_tracer("penchant"))


def _grpc() -> bool:
    return _first(PROTOCOLS) == "grpc"


def _first(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
