import subprocess
import sys
import threading

import pytest

from infra import masks, traces
from infra.progress import phase
from infra.settings import REPOSITORY
from tests.trace_receiver import trace_receiver, tree

RUN = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def spans(monkeypatch):
    """What a receiver of traces gets, which the environment names."""
    monkeypatch.setattr(traces, "_known", {})
    for name in (*traces.PROTOCOLS, *traces.HEADERS, "OTEL_SERVICE_NAME", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACEPARENT", RUN)
    with trace_receiver() as (address, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        yield got


def stage(name="stage ingest", **more):
    return traces.root(name, service="penchant-spark", facts={"dataset": "shop"}, **more)


def test_phases_are_spans_of_their_stage_and_the_stage_one_of_its_task(spans):
    with stage(began=1_770_000_000.0):
        traces.add("start of the engine", 1_770_000_000.0, 1_770_000_008.5)
        with phase("checking reviews") as counts, phase("gate of reviews"):
            counts["rows"] = 3502
    by_name = {span.name: span for span in spans}
    whole = by_name["stage ingest"]
    assert {span.trace for span in spans} == {"ab" * 16}
    assert (whole.parent, whole.service, whole.facts) == ("cd" * 8, "penchant-spark", {"dataset": "shop"})
    assert by_name["checking reviews"].parent == by_name["start of the engine"].parent == whole.id
    assert by_name["gate of reviews"].parent == by_name["checking reviews"].id
    assert by_name["checking reviews"].facts == {"rows": 3502}
    start = by_name["start of the engine"]
    assert (whole.began, start.ended - start.began) == (1_770_000_000.0, pytest.approx(8.5))
    assert [line.split("  ")[-1].strip() for line in tree(spans)][:2] == ["stage ingest", "start of the engine"]


def test_a_failure_marks_its_spans_and_nothing_secret_is_sent(spans, monkeypatch):
    monkeypatch.setattr(masks, "_hidden", {"sk-1234567890": None})
    with pytest.raises(OSError, match="sk-"), stage(), phase("asking sk-1234567890"):
        raise OSError("https://me:hunter22@host/ refuses sk-1234567890")
    assert [span.failed for span in spans] == ["OSError: https://***@host/ refuses ***"] * 2
    assert spans[0].name == "asking ***"


def test_threads_and_other_processes_join_their_stage(spans):
    with stage():
        above = traces.traceparent()
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    with stage("training worker 0", parent=above):
        pass
    by_name = {span.name: span for span in spans}
    whole = by_name["stage ingest"].id
    assert by_name["in a thread"].parent == by_name["training worker 0"].parent == whole


def in_a_thread():
    with phase("in a thread"):
        pass


def test_without_a_run_each_stage_has_a_trace_and_a_run_that_is_left_out_has_none(spans, monkeypatch):
    monkeypatch.delenv("TRACEPARENT")
    for _ in range(2):
        with stage():
            pass
    assert len({span.trace for span in spans}) == 2
    with stage(parent=RUN[:-1] + "0"):
        pass
    assert len(spans) == 2


def test_a_receiver_that_is_down_fails_nothing(spans, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with stage():
        pass
    assert spans == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "ValueError"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "ModuleNotFoundError")],
)
def test_what_cannot_send_warns_once_and_fails_nothing(spans, monkeypatch, caplog, name, value, problem):
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    for _ in range(2):
        with stage(), phase("checking reviews"):
            pass
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "there are no traces" in warning.getMessage()
    assert problem in warning.getMessage()
    assert spans == []


def test_without_a_receiver_nothing_is_loaded(tmp_path):
    code = (
        "import sys\nfrom infra import metrics, traces\nfrom infra.progress import phase\n"
        "with traces.root('s', service='p', facts={}), phase('x'):\n    traces.add('y', 0, 1)\n"
        "assert traces.traceparent() == '' and traces.airflow_environment() == {}\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'opentelemetry', 'prometheus_client', 'google'})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_airflow_sends_its_spans_to_the_same_receiver(spans, monkeypatch):
    assert traces.airflow_environment() == {
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "AIRFLOW__TRACES__OTEL_SERVICE": "airflow",
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
    }
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert traces.airflow_environment()["OTEL_TRACES_EXPORTER"] == "otlp_proto_grpc"
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert traces.airflow_environment() == {}
