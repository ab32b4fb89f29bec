"""A task that defers while its Ray job runs, against a server that speaks Ray's jobs API and keeps its rules."""

import asyncio
import datetime as dt
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from schemas.handoff import StageReport, write_report

TOKEN = "t0ken-of-the-cluster"


class Cluster:
    """Ray's jobs API: one job per submission id, ever; jobs run until a test ends them."""

    def __init__(self):
        self.jobs, self.logs, self.submits, self.stops = {}, {}, [], []
        self.token, self.down = "", False

    def answer(self, method, path, body):
        name = path.removeprefix("/api/jobs/").partition("/")[0]
        if path == "/api/version":
            return {"version": "4", "ray_version": "2.60.0", "ray_commit": ""}
        if method == "GET" and not name:
            return [self._details(one) for one in self.jobs]
        if method == "POST" and not name:
            if body["submission_id"] in self.jobs:
                return None
            name = body["submission_id"]
            self.submits.append(name)
            self.jobs[name], self.logs[name] = "RUNNING", "epoch 1\n"
            self.report_uri = next(a for a in body["entrypoint"].split() if "--report-uri=" in a).split("=", 1)[1]
            return {"job_id": name, "submission_id": name}
        if name not in self.jobs:
            return None
        if path.endswith("/logs"):
            return {"logs": self.logs[name]}
        if path.endswith("/stop"):
            self.stops.append(name)
            if self.jobs[name] == "RUNNING":
                self.jobs[name] = "STOPPED"
            return {"stopped": True}
        if method == "DELETE":
            del self.jobs[name]
            return {"deleted": True}
        return self._details(name)

    def end(self, status="SUCCEEDED", more="epoch 2\n"):
        """End the running job; the log gets `more`."""
        (name,) = (name for name, state in self.jobs.items() if state == "RUNNING")
        if status == "SUCCEEDED":
            write_report(self.report_uri, StageReport(stage="train", status="done", counts={"steps": 5}))
        self.jobs[name] = status
        self.logs[name] += more

    def _details(self, name):
        return {
            "type": "SUBMISSION",
            "entrypoint": "",
            "submission_id": name,
            "status": self.jobs[name],
            "message": "driver exited with 1",
        }


@pytest.fixture
def cluster(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    state = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def _do(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or "null")
            found = state.answer(self.command, self.path, body)
            if state.down:
                status, found = 503, "starting"
            elif state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                status, found = 401, "Unauthorized: Missing authentication token"
            else:
                status = 200 if found is not None else 404
            text = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def task(cluster, monkeypatch, tmp_path, airflow_home):
    """One task of a run: `begin` a try, `resume` it with a trigger's event, as Airflow does with a fresh operator."""
    from airflow.sdk.exceptions import TaskDeferred
    from airflow.sdk.serde import deserialize, serialize

    from dags.chain import TRAIN_BASELINE
    from dags.operators import ray_stage, ray_trigger

    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    monkeypatch.setenv("PENCHANT_RAY__DASHBOARD_ADDRESS", cluster.address)
    monkeypatch.setattr(ray_trigger, "LONGEST_PAUSE_S", 0.02)
    context = {
        "params": {"dataset": "d", "partition": "2026-01-31", "recommender": "mendertok"},
        "dag": SimpleNamespace(dag_id="daily_retrain"),
        "ti": SimpleNamespace(
            xcom_pull=lambda task_ids: None, get_dr_count=lambda **query: 1, start_date=dt.datetime.now(dt.UTC)
        ),
        "dag_run": SimpleNamespace(dag_id="daily_retrain", run_id="manual__1", run_after=None),
    }

    def run(work, **kwargs):
        operator = ray_stage.RayStageOperator(
            task_id="train_baseline", stage=TRAIN_BASELINE, **({"deferrable": True} | kwargs)
        )
        try:
            return work(operator)
        except TaskDeferred as deferred:
            path, arguments = deferred.trigger.serialize()
            kept = json.dumps({"trigger": serialize(arguments), "next": serialize(deferred.kwargs)})
            return SimpleNamespace(
                path=path,
                kept=kept,
                arguments=deserialize(json.loads(kept)["trigger"]),
                next=(deferred.method_name, deserialize(json.loads(kept)["next"])),
                timeout=deferred.timeout,
            )

    def begin(**kwargs):
        return run(lambda operator: operator.execute(context), **kwargs)

    def resume(deferred, event, **kwargs):
        method, arguments = deferred.next
        given = arguments | {"event": event}
        return run(lambda operator: operator.resume_execution(method, given, context), **kwargs)

    return SimpleNamespace(begin=begin, resume=resume, context=context)


def trigger_of(deferred):
    """The trigger as a triggerer makes it: from the class path and what the database has."""
    from airflow.sdk._shared.module_loading import import_string

    return import_string(deferred.path)(**deferred.arguments)


def event_of(trigger, meanwhile=lambda: None):
    """The one event of a trigger; `meanwhile` runs once it has looked at the job a few times."""

    async def follow():
        events = []

        async def collect():
            events.extend([event.payload async for event in trigger.run()])

        running = asyncio.create_task(collect())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(meanwhile)
        await asyncio.wait_for(running, 20)
        return events

    (event,) = asyncio.run(follow())
    return json.loads(json.dumps(event))


@contextmanager
def running(trigger):
    """A trigger under way in a triggerer, which is shut down on leaving; gives what to call for that by a person."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def first():
        async for _ in trigger.run():
            raise AssertionError

    going = asyncio.run_coroutine_threadsafe(first(), loop)
    time.sleep(0.1)
    yield lambda: asyncio.run_coroutine_threadsafe(trigger.on_kill(), loop).result(5)
    going.cancel()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def lines_in(capsys):
    """Lines of the job's log that the task or its trigger has logged."""
    return re.findall(r"epoch \d+", capsys.readouterr().out)


def test_a_deferred_task_ends_as_one_that_waited(task, cluster, capsys):
    deferred = task.begin()
    assert len(cluster.submits) == 1
    assert cluster.jobs == {cluster.submits[0]: "RUNNING"}
    event = event_of(trigger_of(deferred), cluster.end)
    assert event == {"shown": len("epoch 1\nepoch 2\n"), "problem": ""}
    report = task.resume(deferred, event)
    assert (report["status"], report["counts"]) == ("done", {"steps": 5})
    assert lines_in(capsys) == ["epoch 1", "epoch 2"], "each line once"
    assert task.begin()["status"] == "reused"
    assert task.begin(deferrable=False)["status"] == "reused"
    assert len(cluster.submits) == 1


def test_lines_that_the_trigger_did_not_see_are_logged_on_resume(task, cluster, capsys):
    deferred = task.begin()
    cluster.end()
    task.resume(deferred, {"shown": len("epoch 1\n"), "problem": ""})
    assert lines_in(capsys) == ["epoch 1", "epoch 2"]


def test_a_triggerer_that_is_restarted_goes_on_with_the_same_job(task, cluster):
    deferred = task.begin()
    with running(trigger_of(deferred)):
        pass
    assert cluster.stops == [], "a shutdown is no reason to stop the job"
    event = event_of(trigger_of(deferred), cluster.end)
    assert task.resume(deferred, event)["status"] == "done"
    assert len(cluster.submits) == 1


def test_a_person_who_clears_the_task_stops_the_job_and_the_next_try_submits_it_again(task, cluster):
    with running(trigger_of(task.begin())) as kill:
        kill()
    assert cluster.stops == cluster.submits
    again = task.begin()
    assert len(cluster.submits) == 2
    assert task.resume(again, event_of(trigger_of(again), cluster.end))["status"] == "done"


def test_a_retry_attaches_to_the_job_that_goes_on(task, cluster):
    task.begin()
    again = task.begin()
    assert task.resume(again, event_of(trigger_of(again), cluster.end))["status"] == "done"
    assert len(cluster.submits) == 1


def test_a_try_that_attached_submits_again_when_the_one_before_stops_the_job(task, cluster):
    first = task.begin()
    attached = task.begin()
    event = event_of(trigger_of(attached), lambda: asyncio.run(trigger_of(first).on_kill()))
    again = task.resume(attached, event)
    assert len(cluster.submits) == 2
    assert task.resume(again, event_of(trigger_of(again), cluster.end))["status"] == "done"


@pytest.mark.parametrize("status", ["FAILED", "STOPPED"])
def test_a_job_that_fails_or_is_stopped_fails_the_try_and_is_submitted_once_more(task, cluster, status):
    from airflow.sdk.exceptions import AirflowException

    deferred = task.begin()
    event = event_of(trigger_of(deferred), lambda: cluster.end(status))
    with pytest.raises(AirflowException, match=f"ended as {status}: driver exited with 1"):
        task.resume(deferred, event)
    assert len(cluster.submits) == 1
    task.begin()
    assert len(cluster.submits) == 2


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"PENCHANT_RAY__JOB_TIMEOUT_S": "100"}, r"ran past ray\.job_timeout_s=100 and was stopped"),
        ({"execution_timeout": dt.timedelta(seconds=100)}, "ran past the task's execution_timeout of 0:01:40"),
    ],
)
def test_a_job_whose_time_is_up_is_stopped(task, cluster, monkeypatch, limits, said):
    from airflow.sdk.exceptions import AirflowException

    for name in [name for name in limits if name.isupper()]:
        monkeypatch.setenv(name, limits.pop(name))
    deferred = task.begin(**limits)
    assert 0 < deferred.arguments["until"] - time.time() <= 100
    assert 600 < deferred.timeout <= 700, "Airflow's own limit is for where no triggerer runs"
    deferred.arguments["until"] = deferred.next[1]["until"] = time.time()
    event = event_of(trigger_of(deferred))
    with pytest.raises(AirflowException, match=said):
        task.resume(deferred, event, **limits)
    assert cluster.stops == cluster.submits


def test_a_cluster_that_is_restarted_is_waited_for(task, cluster):
    deferred = task.begin()

    def restart():
        cluster.down = True
        time.sleep(0.1)
        cluster.down = False
        cluster.end()

    assert task.resume(deferred, event_of(trigger_of(deferred), restart))["status"] == "done"


def test_a_cluster_that_stays_away_fails_the_try_in_the_end(task, cluster, monkeypatch):
    from airflow.sdk.exceptions import AirflowException

    from dags.operators import ray_trigger

    monkeypatch.setattr(ray_trigger, "PATIENCE_S", 0.1)
    deferred = task.begin()
    cluster.down = True
    event = event_of(trigger_of(deferred))
    assert "503" in event["problem"]
    with pytest.raises(Exception, match="503"):
        task.resume(deferred, event)
    cluster.down = False
    with pytest.raises(AirflowException, match=r"triggerer cannot follow Ray job .*503.*RAY_AUTH_TOKEN"):
        task.resume(deferred, event)
    assert cluster.stops == []


def test_the_token_comes_from_the_triggerers_environment_and_is_not_kept(task, cluster, monkeypatch, tmp_path):
    deferred = task.begin()
    assert TOKEN not in deferred.kept
    cluster.token = TOKEN
    event = event_of(trigger_of(deferred))
    assert "401" in event["problem"], "a refusal is not waited for"
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert event_of(trigger_of(deferred), cluster.end)["problem"] == ""


def test_the_header_is_that_of_rays_own_client(python, monkeypatch, tmp_path):
    from dags.operators.ray_trigger import token_header

    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of-the-home \n")
    (tmp_path / "file").write_text("of-a-file\n")
    path = str(tmp_path / "file")
    ways = [
        {},
        {"RAY_AUTH_TOKEN": " of-a-variable"},
        {"RAY_AUTH_TOKEN_PATH": path},
        {"RAY_AUTH_TOKEN_PATH": path, "RAY_AUTH_TOKEN": "both"},
    ]
    code = f"""
import os
os.environ["RAY_AUTH_MODE"] = "token"  # read once, when Ray is imported
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
for way in {ways!r}:
    pid = os.fork()
    if not pid:
        os.environ.update(way, HOME={str(tmp_path)!r})
        print("HEADER", get_auth_headers_if_auth_enabled({{}}), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert token_header() == {}, "as Ray's without a mode"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    said = [line.removeprefix("HEADER ") for line in python(code).splitlines() if line.startswith("HEADER ")]
    for way, theirs in zip(ways, said, strict=True):
        with monkeypatch.context() as patch:
            for name, value in way.items():
                patch.setenv(name, value)
            ours = {name.lower(): value for name, value in token_header().items()}
            assert str(ours) == theirs, way
