"""The trace of a DAG's run: Airflow's own spans, with those of the Spark stages that its tasks start below."""

import sys
import time

from served_registry import free_port

from infra.airflow_api import AirflowAPI
from infra.dag_runs import DagRuns
from infra.local_environment import Ports
from infra.services import Supervisor
from pipelines.landing.planted_world.__main__ import main as planted_world
from pipelines.tools.register import main as register
from tests.trace_receiver import trace_receiver, tree

LIMIT_S = 480


def test_a_run_its_tasks_and_their_spark_stages_are_one_trace(tmp_path, monkeypatch, capsys):
    ports = Ports(airflow=free_port(), mlflow=free_port(), ray_dashboard=free_port(), ray_gcs=free_port())
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    planted_world([f"--out={tmp_path}/world", "--users=60", "--items=40"])
    files = [f"--reviews={tmp_path}/world/reviews.jsonl.gz", f"--items={tmp_path}/world/meta.jsonl.gz"]
    register(["--name=traced", *files])
    with trace_receiver() as (address, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        # After the Spark stages the run fails, because no registry and no Ray cluster answer.
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        supervisor = Supervisor(tmp_path, ports, names=("airflow",))
        supervisor.up(say=lambda _: None)
        try:
            api = AirflowAPI(f"http://127.0.0.1:{ports.airflow}", tmp_path)
            DagRuns(api, tmp_path).wait_for_dag("daily_retrain")
            end = time.monotonic() + LIMIT_S
            api.ensure_pool("heavy", 1, "")
            run_id = api.trigger("daily_retrain", {"dataset": "traced", "partition": "2026-01-31"})
            while api.run_state("daily_retrain", run_id) not in ("failed", "success"):
                assert time.monotonic() < end, api.tasks("daily_retrain", run_id)
                time.sleep(1)
            time.sleep(5)
        finally:
            supervisor.down(say=lambda _: None)
    (run,) = (span for span in spans if span.name == "dag_run.daily_retrain")
    ours = [span for span in spans if span.trace == run.trace]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *tree(ours), ""]))
    by_id = {span.id: span for span in ours}
    for stage in ("ingest", "sequences"):
        (found,) = (span for span in ours if span.name == f"stage {stage}")
        above, line = found, []
        while above.parent:
            above = by_id[above.parent]
            line.append(above)
        assert f"worker.{stage}" in {span.name for span in line}
        assert line[-1] == run
        assert found.facts["dataset"] == "traced"
        assert {"start of the engine", f"gate of {'reviews' if stage == 'ingest' else stage}"} <= {
            span.name for span in ours if span.parent == found.id
        }
