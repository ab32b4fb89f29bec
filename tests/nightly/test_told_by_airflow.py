"""Alerts as Airflow's own services give them: its scheduler finds the late run, its DAG processor the failed one."""

import time

from receivers import webhook
from served_registry import free_port

from infra.airflow_api import AirflowAPI
from infra.dag_runs import DagRuns
from infra.local_environment import Ports
from infra.services import Supervisor

LIMIT_S = 420


def test_a_late_run_and_its_failure_are_told_once_each(tmp_path, monkeypatch):
    ports = Ports(airflow=free_port(), mlflow=free_port(), ray_dashboard=free_port(), ray_gcs=free_port())
    supervisor = Supervisor(tmp_path, ports, names=("airflow",))
    with webhook() as (url, posted):
        monkeypatch.setenv("PENCHANT_ALERTS__WEBHOOK_URL", url)
        monkeypatch.setenv("PENCHANT_ALERTS__DEADLINE_MINUTES", "0.05")
        supervisor.up(say=lambda _: None)
        try:
            api = AirflowAPI(f"http://127.0.0.1:{ports.airflow}", tmp_path)
            DagRuns(api, tmp_path).wait_for_dag("daily_retrain")
            end = time.monotonic() + LIMIT_S
            api.ensure_pool("heavy", 2, "")
            run_id = api.trigger("daily_retrain", {"dataset": "nobody", "partition": "2026-01-31"})
            while api.run_state("daily_retrain", run_id) not in ("failed", "success") or len(posted) < 2:
                assert time.monotonic() < end, (api.tasks("daily_retrain", run_id), posted)
                time.sleep(1)
            time.sleep(5)
        finally:
            supervisor.down(say=lambda _: None)
    told = {document["event"]: document for _, _, document in posted}
    assert len(posted) == 2
    assert set(told) == {"run_late", "run_failed"}
    assert told["run_late"]["run_id"] == told["run_failed"]["run_id"] == run_id
    assert told["run_late"]["dag_id"] == "daily_retrain"
    failures = {failure["task_id"]: failure for failure in told["run_failed"]["failures"]}
    assert "no data set 'nobody' is registered" in failures["ingest"]["message"]
    assert failures["ingest"]["page"].startswith(f"http://127.0.0.1:{ports.airflow}/dags/daily_retrain/runs/")
    assert "day_report" in failures, "no Ray cluster answered it"
