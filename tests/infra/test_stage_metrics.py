import json
import re
from base64 import b64encode
from contextlib import contextmanager

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from infra.errors import SettingError
from infra.metrics import MOST_COUNTS, StageEnd, push, registry_of
from infra.settings import REPOSITORY, MetricsSettings, load_settings
from ray_jobs.serving.metrics import REPLICA_COUNTERS, REPLICA_GAUGES, ServerMetrics
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.stage_runner import run_stage
from tests.receivers import http_receiver

END = StageEnd(stage="ingest", dataset="shop", recipe="", status="done", at=1_770_000_000.0)
FULL = StageEnd(**{**vars(END), "recipe": "tiger", "seconds": 3.5, "start_seconds": 8.0, "counts": {"rows": 3502}})
NAME = re.compile(r"\bpenchant_[a-z_]+\b")


@contextmanager
def pushgateway(status=200):
    """Yields the address and the list of requests: method, path, login and samples by name and labels."""
    got = []

    def receive(call, body):
        got.append((call.command, call.path, call.headers.get("Authorization", ""), samples(body.decode())))

    with http_receiver(receive, status) as address:
        yield address, got


def samples(text):
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_the_end_of_a_stage_reaches_the_pushgateway_under_its_own_group():
    with pushgateway() as (address, got):
        push(FULL, MetricsSettings(pushgateway=f"http://me:p%40ss@{address}/prom"))
    ((method, path, login, told),) = got
    assert method == "POST", "the group keeps what this does not have"
    first, *place = path.removeprefix("/prom/metrics/").split("/")
    assert (first, dict(zip(place[1::2], place[2::2], strict=True))) == (
        "job",
        {"stage": "ingest", "dataset": "shop", "recipe": "tiger"},
    )
    assert login == f"Basic {b64encode(b'me:p@ss').decode()}"
    assert told == {
        ("penchant_stage_status", "done"): 1,
        ("penchant_stage_last_success_timestamp_seconds",): END.at,
        ("penchant_stage_day_timestamp_seconds",): 0,
        ("penchant_stage_seconds",): 3.5,
        ("penchant_stage_start_seconds",): 8,
        ("penchant_stage_count", "rows"): 3502,
    }


def test_a_failure_leaves_the_last_success_and_counts_are_bounded():
    failed = generate_latest(registry_of(StageEnd(**{**vars(FULL), "failed": True, "status": "error"}))).decode()
    assert samples(failed) == {
        ("penchant_stage_status", "error"): 1,
        ("penchant_stage_last_failure_timestamp_seconds",): END.at,
    }
    many = StageEnd(**{**vars(END), "counts": {f"n{number}": number for number in range(10 * MOST_COUNTS)}})
    assert generate_latest(registry_of(many)).decode().count("penchant_stage_count{") == MOST_COUNTS


def test_a_gateway_that_is_down_or_refuses_fails_nothing(caplog):
    with pushgateway(status=500) as (address, got):
        push(END, MetricsSettings(pushgateway=f"http://{address}"))
    push(END, MetricsSettings(pushgateway="http://127.0.0.1:9", timeout_s=0.5))
    assert len(got) == 1
    assert len(caplog.records) == 2
    assert all("metrics of ingest were not sent" in record.getMessage() for record in caplog.records)


def test_an_address_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setenv("PENCHANT_METRICS__PUSHGATEWAY", "pushgateway:9091")
    with pytest.raises(SettingError, match=r"metrics.*must begin with http"):
        load_settings()


def test_a_stage_sends_its_end_however_it_ends(monkeypatch, tmp_path):
    argv = ["--dataset=shop", "--partition=2026-01-31", f"--report-uri={tmp_path}/report.json"]
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    with pushgateway() as (address, got):
        monkeypatch.setenv("PENCHANT_METRICS__PUSHGATEWAY", f"http://{address}")
        run_stage("ingest", lambda request: StageReport(stage="ingest", status="done", counts={"rows": 7}), argv)
        with pytest.raises(SystemExit):
            run_stage("ingest", refuse, argv)
        with pytest.raises(ZeroDivisionError):
            run_stage("ingest", lambda request: 1 / 0, argv)
    found = [told for _, _, _, told in got]
    assert [next(key[1] for key in told if key[0] == "penchant_stage_status") for told in found] == [
        "done",
        "user_error",
        "error",
    ]
    assert found[0]["penchant_stage_count", "rows"] == 7
    assert found[0][("penchant_stage_day_timestamp_seconds",)] == 1_769_817_600


def refuse(request):
    raise DataError("row 7 has no item")


@pytest.fixture(scope="module")
def emitted():
    """Names of all metrics that the code emits, as they are in Prometheus."""
    server = ServerMetrics()
    with server.request("/recommend"):
        pass
    numbers = dict.fromkeys((*REPLICA_GAUGES, *REPLICA_COUNTERS), 0)
    server.hear(json.dumps({"replica": "a", "model_version": "m/1", **numbers}).encode())
    failed = StageEnd(**{**vars(END), "failed": True})
    texts = [server.text(), *(generate_latest(registry_of(end)) for end in (FULL, failed))]
    names = {key[0] for text in texts for key in samples(text.decode())}
    return {name for name in names if not name.endswith("_created")}


def test_the_board_shows_every_metric_and_no_other(emitted):
    board = json.loads((REPOSITORY / "infra" / "grafana" / "penchant.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    shown = {name for panel in panels for target in panel["targets"] for name in NAME.findall(target["expr"])}
    assert shown - emitted == set()
    histogram = {f"penchant_serving_request_seconds_{part}" for part in ("count", "sum")}
    assert emitted - shown == histogram
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_readme_explains_every_metric_and_no_other(emitted):
    text = (REPOSITORY / "infra" / "README.md").read_text().partition("## What to watch\n")[2].partition("\n## ")[0]
    explained = set(NAME.findall(text))
    base = {name.removesuffix("_bucket") for name in emitted}
    assert explained == base - {f"penchant_serving_request_seconds_{part}" for part in ("count", "sum")}
