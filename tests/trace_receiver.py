"""A receiver of OpenTelemetry traces on loopback (OTLP over HTTP, protobuf), and the tree of what it got."""

import gzip
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.receivers import http_receiver


@dataclass(frozen=True)
class Received:
    """One span; times in seconds."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    began: float
    ended: float
    failed: str
    facts: dict


@contextmanager
def trace_receiver():
    """Yields the address for ``OTEL_EXPORTER_OTLP_ENDPOINT`` and the list of spans."""
    got = []

    def receive(call, body):
        zipped = call.headers.get("Content-Encoding") == "gzip"
        got.extend(spans_of(gzip.decompress(body) if zipped else body))

    with http_receiver(receive) as address:
        yield f"http://{address}", got


def spans_of(body):
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield Received(
                service=service,
                name=span.name,
                trace=span.trace_id.hex(),
                id=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                began=span.start_time_unix_nano / 1e9,
                ended=span.end_time_unix_nano / 1e9,
                failed=span.status.message if span.status.code == 2 else "",
                facts={one.key: value_of(one.value) for one in span.attributes},
            )


def value_of(value):
    return getattr(value, value.WhichOneof("value"))


def tree(spans):
    """Lines of a tree: the start since the first span, the duration, service and name; children after parents."""
    first = min(span.began for span in spans)
    known = {span.id for span in spans}
    lines = []

    def show(span, depth):
        took = span.ended - span.began
        mark = f"  FAILED {span.failed}" if span.failed else ""
        name = f"{'  ' * depth}{span.name}"
        lines.append(f"{span.began - first:8.2f} s {took:8.2f} s  {span.service:<15} {name}{mark}")
        # Airflow gives all tries of a task one id.
        inside = (one for one in spans if one.parent == span.id and span.began <= one.began <= span.ended)
        for child in sorted(inside, key=lambda one: one.began):
            show(child, depth + 1)

    for top in sorted((one for one in spans if one.parent not in known), key=lambda one: one.began):
        show(top, 0)
    return lines
