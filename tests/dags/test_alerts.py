import logging
from types import SimpleNamespace

import pytest
from receivers import mailbox, webhook

RUN = "manual__2026-01-31T03:00:00+00:00"


@pytest.fixture
def home(monkeypatch, tmp_path, airflow_home):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow:8080/")
    return tmp_path


@pytest.fixture
def receivers(monkeypatch, home):
    with webhook() as (url, posted), mailbox() as (host, port, mailed):
        monkeypatch.setenv("PENCHANT_ALERTS__WEBHOOK_URL", url)
        monkeypatch.setenv("PENCHANT_ALERTS__EMAIL_TO", '["ops@example.org", "ml@example.org"]')
        monkeypatch.setenv("PENCHANT_ALERTS__SMTP_HOST", host)
        monkeypatch.setenv("PENCHANT_ALERTS__SMTP_PORT", str(port))
        yield SimpleNamespace(posted=posted, mailed=mailed)


def failing(task_id, error):
    log = f"http://airflow:8080/dags/daily_retrain/runs/r/tasks/{task_id}?try_number=3"
    return {"ti": SimpleNamespace(task_id=task_id, dag_id="daily_retrain", run_id=RUN, log_url=log), "exception": error}


def failed_run(**more):
    run = SimpleNamespace(dag_id="daily_retrain", run_id=RUN)
    dag = SimpleNamespace(dag_id="daily_retrain", task_ids=["ingest", "preferences", "item_vectors", "register"])
    params = {"dataset": "shop", "partition": "2026-01-31"}
    return {"dag": dag, "run_id": RUN, "dag_run": run, "reason": "task_failure", "params": params, **more}


def test_one_message_names_every_failed_task_what_it_said_and_where_its_log_is(receivers):
    from dags import alerts

    alerts.note_failure(failing("preferences", ValueError("preferences: llm.budget_cost 5 is spent")))
    alerts.note_failure(failing("item_vectors", RuntimeError("no Ray cluster answers")))
    alerts.note_failure(failing("register", KeyError()))
    alerts.forget_failure(failing("register", None))  # cleared, and it went well then
    alerts.tell_failed_run(failed_run())

    ((_, _, posted),) = receivers.posted
    assert posted["event"] == "run_failed"
    assert (posted["dag_id"], posted["run_id"]) == ("daily_retrain", RUN)
    assert posted["page"] == "http://airflow:8080/dags/daily_retrain/runs/manual__2026-01-31T03%3A00%3A00%2B00%3A00"
    assert [f["task_id"] for f in posted["failures"]] == ["preferences", "item_vectors"]
    assert posted["failures"][0]["message"] == "llm.budget_cost 5 is spent"
    assert posted["text"].startswith("daily_retrain failed (shop, 2026-01-31): preferences and item_vectors\n")
    ((to, mail),) = receivers.mailed
    assert to == ["ops@example.org", "ml@example.org"]
    assert mail["Subject"] == "daily_retrain failed (shop, 2026-01-31): preferences and item_vectors"
    text = mail.get_content()
    assert "preferences: llm.budget_cost 5 is spent" in text
    assert "http://airflow:8080/dags/daily_retrain/runs/r/tasks/item_vectors?try_number=3" in text


def test_a_run_that_failed_without_a_word_is_told_with_airflows_reason(receivers):
    from dags import alerts

    alerts.tell_failed_run(failed_run(reason="timed_out", params=None, dag_run=None))
    ((_, _, posted),) = receivers.posted
    assert posted["text"].startswith("daily_retrain failed: timed_out")
    assert posted["failures"] == []


def test_a_late_run_is_told(receivers, monkeypatch):
    from dags import alerts

    monkeypatch.setenv("PENCHANT_ALERTS__DEADLINE_MINUTES", "90")
    run = {"dag_id": "daily_retrain", "dag_run_id": RUN, "state": "running"}
    alerts.tell_late_run({"dag_run": run, "deadline": {"id": "1", "deadline_time": "2026-02-01T04:30:00Z"}})
    ((_, _, posted),) = receivers.posted
    assert (posted["event"], posted["deadline"]) == ("run_late", "2026-02-01T04:30:00Z")
    assert "90 minutes after queueing" in receivers.mailed[0][1].get_content()


def test_a_receiver_that_is_down_is_logged_and_the_other_one_still_told(receivers, monkeypatch, caplog):
    from dags import alerts

    with webhook(status=503) as (url, refused):
        monkeypatch.setenv("PENCHANT_ALERTS__WEBHOOK_URL", url)
        with caplog.at_level(logging.ERROR, logger="dags.alerts"):
            alerts.tell_failed_run(failed_run())
    assert len(refused) == len(receivers.mailed) == 1
    (said,) = [record.getMessage() for record in caplog.records if record.name == "dags.alerts"]
    assert "HTTP Error 503" in said
    assert "secret" not in said, "the path of a webhook is one"
    monkeypatch.setenv("PENCHANT_ALERTS__SMTP_PORT", "9")
    with caplog.at_level(logging.ERROR, logger="dags.alerts"):
        alerts.tell_failed_run(failed_run())
    assert any("127.0.0.1:9 did not take the alert" in record.getMessage() for record in caplog.records)


def test_dags_are_watched_only_where_somebody_is_to_be_told(receivers, monkeypatch):
    from dags import alerts

    assert alerts.alert_arguments(deadline=True) == {"on_failure_callback": alerts.tell_failed_run}
    monkeypatch.setenv("PENCHANT_ALERTS__DEADLINE_MINUTES", "90")
    deadline = alerts.alert_arguments(deadline=True)["deadline"]
    assert deadline.interval.total_seconds() == 5400
    assert deadline.callback.path == "dags.alerts.tell_late_run", "a worker imports it by this name"
    for name in ("WEBHOOK_URL", "EMAIL_TO", "SMTP_HOST", "SMTP_PORT", "DEADLINE_MINUTES"):
        monkeypatch.delenv(f"PENCHANT_ALERTS__{name}")
    assert alerts.alert_arguments(deadline=True) == {}
