"""The same over HTTP, where error codes, types and artifacts differ, and the doors of the local services' server."""

import os
import shutil
import socket
from dataclasses import replace

import mlflow
import pandas as pd
import pyarrow as pa
import pytest
import requests
from mlflow import MlflowClient

from infra.home import USER
from infra.local_environment import Ports, local_environment
from infra.services import Supervisor
from infra.settings import load_settings
from ray_jobs import register
from ray_jobs.recommendations import Scorer
from ray_jobs.registry import aliases, runs
from ray_jobs.tools.fixed_test_set import measure


@pytest.fixture
def server(world, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ports = Ports(mlflow=free.getsockname()[1])
    supervisor = Supervisor(world.home, ports, names=("mlflow",))
    # The registry of the fixtures above: all tables are there, which saves the server its migrations.
    (world.home / "mlflow").mkdir()
    shutil.copy(world.home / "mlflow.db", world.home / "mlflow" / "mlflow.db")
    try:
        supervisor.up(say=lambda _: None)
        monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", f"http://127.0.0.1:{ports.mlflow}")
        for name, value in local_environment(world.home, ports).items():
            if name.startswith("MLFLOW_TRACKING_"):
                monkeypatch.setenv(name, value)
        yield replace(world, settings=load_settings())
    finally:
        supervisor.down(say=lambda _: None)


def doors(address):
    """How the server answers who does not say who asks, or asks by a name that it does not know."""
    model_code = "api/2.0/mlflow-artifacts/artifacts/1/models/m/artifacts/model_code.py"
    experiments, search = "api/2.0/mlflow/experiments/search", {"max_results": 1}
    login = (USER, os.environ["MLFLOW_TRACKING_PASSWORD"])
    with requests.Session() as asks:
        asks.trust_env = False
        return {
            "put": asks.put(f"{address}/{model_code}", data="evil").status_code,
            "get": asks.get(f"{address}/{model_code}").status_code,
            "search": asks.post(f"{address}/{experiments}", json=search).status_code,
            "page": asks.get(address).status_code,
            "wrong": asks.post(f"{address}/{experiments}", json=search, auth=("admin", "password")).status_code,
            "rebound": asks.post(
                f"{address}/{experiments}", json=search, auth=login, headers={"Host": "evil.example:5000"}
            ).status_code,
            "ours": asks.post(f"{address}/{experiments}", json=search, auth=login).status_code,
        }


def test_registering_over_http(server):
    trained = server.train()
    client = runs.connect(server.settings)
    assert aliases.version_at(client, "penchant-tiny", "champion") is None
    made = server.evaluate({f"sasrec@{trained['run_identity']}": lambda n: 1, "popularity@m": lambda n: 2 + n})
    request = made.register_request(trained)
    report = register.run(request)
    assert (report.status, report.outputs["version"], report.outputs["alias"]) == ("done", "1", "champion")
    again = register.run(request)
    assert (again.status, again.outputs) == ("reused", report.outputs)
    assert made.train() == trained

    run = MlflowClient().get_run(trained["mlflow_run_id"])
    assert len(MlflowClient().get_metric_history(trained["mlflow_run_id"], "loss")) == 2
    assert sorted(i.dataset.name for i in run.inputs.dataset_inputs) == ["items", "sequences"]
    assert list((made.home / "mlflow" / "artifacts").rglob("recipe.json"))
    model = mlflow.pyfunc.load_model("models:/penchant-tiny@champion")
    answer = model.predict(pd.DataFrame({"history": [["i00"]]}), params={"k": 2})
    assert len(answer["item_ids"][0]) == 2

    refused = dict.fromkeys(("put", "get", "search", "page", "wrong"), 401)
    assert doors(server.settings.mlflow.tracking_uri) == refused | {"rebound": 403, "ours": 200}

    # Whoever can write there all the same has no say in what scoring runs.
    found = list((made.home / "mlflow" / "artifacts").rglob("model_code.py"))
    assert found
    for code in found:
        code.write_text("raise SystemExit('the code of the artifact was run')")
    probe = made.home / "probe.jsonl"
    probe.write_text('{"history": ["i00"], "next": "i07"}')
    assert measure("penchant-tiny@champion", probe)["users"] == 1
    scorer = Scorer(server.settings.mlflow.tracking_uri, "penchant-tiny/1", k=2, exclude_seen=True, where="")
    asked = {"user_id": ["u"], "history": [["i00"]], "known": [None], "times": [[0]], "asked_at": [1]}
    assert scorer(pa.table({**asked, "known": pa.array([None], pa.string())})).column("item_ids").to_pylist() == [
        list(answer["item_ids"][0])
    ]
