"""The same over HTTP: error codes, types and artifacts differ between a database and a server."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient

from infra.settings import load_settings
from ray_jobs import register
from ray_jobs.registry import aliases, runs


@pytest.fixture
def server(world, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = world.home
    command = [
        *(str(Path(sys.executable).with_name("mlflow")), "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"),
        *(f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, folder / "server.log")
        monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", address)
        yield replace(world, settings=load_settings())
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_for(address, process, log):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if requests.get(f"{address}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


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
    assert list((made.home / "artifacts").rglob("recipe.json"))
    model = mlflow.pyfunc.load_model("models:/penchant-tiny@champion")
    answer = model.predict(pd.DataFrame({"history": [["i00"]]}), params={"k": 2})
    assert len(answer["item_ids"][0]) == 2
