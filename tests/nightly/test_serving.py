"""Servers in processes of their own: MLflow's, and Ray Serve's while the alias moves under load."""

import collections
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from served_registry import free_port, make_registry, running

from infra.home import socket_folder
from infra.settings import REPOSITORY
from ray_jobs.recipes.generative.tiger import TigerSettings

ITEMS, CLIENTS = 48, 8


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Two versions that work, and a third that is no model."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    for name in ("PENCHANT_MLFLOW__TRACKING_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, uri)
    sizes = TigerSettings(width=16, layers=1, encoder_layers=1, heads=1, head_width=16, inner=16)
    client = make_registry("penchant-tiny", ITEMS, sizes)
    client.create_model_version("penchant-tiny", f"{tmp_path}/nothing-here")
    return client


def test_mlflow_serves_a_registered_model(registry, tmp_path):
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--model-uri"),
        *("models:/penchant-tiny@champion", "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    ]
    address = f"http://127.0.0.1:{port}"
    rows = {"columns": ["history", "preference"], "data": [[["i1", "i2"], "Prefers quiet gear"], [[], None]]}
    with running(command, f"{address}/ping", tmp_path / "mlflow.log"):
        found = requests.post(f"{address}/invocations", json={"dataframe_split": rows, "params": {"k": 3}}, timeout=60)
        answers = found.json()["predictions"]
        assert [len(answer["item_ids"]) for answer in answers] == [3, 3]
        assert not {"i1", "i2"} & set(answers[0]["item_ids"])
        inputs = [dict(zip(rows["columns"], values, strict=True)) for values in rows["data"]]
        again = requests.post(f"{address}/invocations", json={"inputs": inputs, "params": {"k": 3}}, timeout=60)
        assert [answer["item_ids"] for answer in again.json()["predictions"]] == [a["item_ids"] for a in answers]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_promotion_under_load_loses_no_request(registry, tmp_path, replicas):
    port = free_port()
    command = [
        *(sys.executable, "-m", "ray_jobs.serving", "--dataset", "tiny", "--port", str(port)),
        *("--replicas", str(replicas), "--cpus-per-replica", "0.5", "--poll-s", "0.3"),
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, f"{address}/health", tmp_path / "serving.log"):
        one_request_and_a_list(address)
        stop, answers, failures = threading.Event(), collections.deque(), []
        threads = [threading.Thread(target=ask_on, args=(address, n, stop, answers, failures)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for version in ("1", "2", "3", "1"):
            registry.set_registered_model_alias("penchant-tiny", "champion", version)
            served = "2" if version == "3" else version
            wait_until_served(address, served, version == "3", answers)
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(answers) > 100
    count = collections.Counter(found["model_version"] for found in answers)
    assert set(count) == {"penchant-tiny/1", "penchant-tiny/2"}
    for found in answers:
        assert all(title.endswith(f"version {found['model_version'][-1]}") for title in found["titles"])


def test_a_cluster_serves_by_configuration_alone(registry, tmp_path, monkeypatch):
    """As KubeRay does it: pods with settings in their environment, a configuration sent to the dashboard."""
    port, dashboard, gcs = free_port(), free_port(), free_port()
    variables = {
        "PENCHANT_STAGES__SERVING__POLL_S": "0.3",
        "PENCHANT_STAGES__SERVING__TOKEN": "open-sesame",
        "PENCHANT_STAGES__SERVING__CPUS_PER_REPLICA": "0.5",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "ray_jobs.serving.ray_service.middlewares",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "PYTHONPATH": str(REPOSITORY),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = [
        *(sys.executable, "-m", "ray_jobs.local_ray", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--port={gcs}", "--num-cpus=2", "--dashboard-agent-listen-port=0", "--metrics-export-port=0"),
        *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"),
        f"--temp-dir={socket_folder(tmp_path)}/ray",
    ]
    configuration = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": "tiny",
                "route_prefix": "/",
                "import_path": "ray_jobs.serving.ray_service:build",
                "args": {"dataset": "tiny"},
            }
        ],
    }
    login = {"Authorization": f"Bearer {variables['RAY_AUTH_TOKEN']}"}
    deploy, address = f"http://127.0.0.1:{dashboard}/api/serve/applications/", f"http://127.0.0.1:{port}"
    with running(command, f"http://127.0.0.1:{dashboard}/api/gcs_healthz", tmp_path / "ray.log"):
        assert requests.put(deploy, json=configuration, timeout=60).status_code == 401
        requests.put(deploy, json=configuration, headers=login, timeout=60).raise_for_status()
        end = time.monotonic() + 120
        while True:
            found = requests.get(deploy, headers=login, timeout=60).json()["applications"].get("tiny", {})
            assert found.get("status") not in ("DEPLOY_FAILED", "UNHEALTHY"), found
            if found.get("status") == "RUNNING":
                break
            assert time.monotonic() < end, found
            time.sleep(0.5)
        assert requests.get(f"{address}/-/healthz", timeout=60).status_code == 200, "what the operator's probe asks"
        asked = {"history": ["i1", "i2"], "k": 4}
        assert requests.post(f"{address}/recommend", json=asked, timeout=60).status_code == 401
        opened = {"Authorization": "Bearer open-sesame"}
        found = requests.post(f"{address}/recommend", json=asked, headers=opened, timeout=60).json()
        assert (found["model_version"], len(found["item_ids"])) == ("penchant-tiny/1", 4)
        registry.set_registered_model_alias("penchant-tiny", "champion", "2")
        while requests.get(f"{address}/health", timeout=60).json()["model_version"] != "penchant-tiny/2":
            assert time.monotonic() < end + 60
            time.sleep(0.2)


def one_request_and_a_list(address):
    def ask(body):
        return requests.post(f"{address}/recommend", json=body, timeout=60)

    one = ask({"history": ["i1", "i2"], "preference": "Prefers quiet gear", "k": 4}).json()
    assert (one["model_version"], len(one["item_ids"]), len(one["scores"])) == ("penchant-tiny/1", 4, 4)
    assert not {"i1", "i2"} & set(one["item_ids"])
    several = ask([{"history": ["i1", "i2"], "k": k, "exclude_seen": k == 4} for k in (4, 7)]).json()
    assert several[0]["item_ids"] == one["item_ids"]
    assert len(several[1]["item_ids"]) == 7
    refused = ask([{"history": ["i1"]}, {"history": ["i1"], "k": 21}])
    assert (refused.status_code, refused.json()["field"]) == (422, "1.k")
    refused = ask({"history": [7]})
    assert (refused.status_code, refused.json()["field"]) == (422, "history.0")
    large = requests.post(f"{address}/recommend", data=b"[" * (2 << 20), timeout=60)
    assert (large.status_code, "1048576 bytes" in large.json()["problem"]) == (413, True)
    strange = requests.get(f"{address}/health", headers={"Host": "evil.example"}, timeout=60)
    assert (strange.status_code, "evil.example" in strange.json()["problem"]) == (403, True)
    assert requests.get(f"{address}/recommend", timeout=60).status_code == 405
    assert requests.get(f"{address}/nowhere", timeout=60).status_code == 404
    assert requests.get(f"{address}/version", timeout=60).json()["model_version"] == "penchant-tiny/1"
    health = requests.get(f"{address}/health", timeout=60).json()
    assert (health["status"], health["alias"]) == ("ok", "champion")


def ask_on(address, number, stop, answers, failures):
    with requests.Session() as session:
        step = 0
        while not stop.is_set():
            step += 1
            k = 1 + (number + step) % 5
            history = [f"i{(number * 5 + step) % ITEMS}"]
            try:
                found = session.post(f"{address}/recommend", json={"history": history, "k": k}, timeout=120)
            except requests.RequestException as error:
                failures.append(error)
                continue
            if found.status_code != 200 or len(found.json()["item_ids"]) != k:
                failures.append((found.status_code, found.text))
            else:
                answers.append(found.json())


def wait_until_served(address, version, broken, answers):
    """Until 40 health checks in a row, spread over the replicas, say so, and answers came after."""
    end, row = time.monotonic() + 90, 0
    while row < 40:
        assert time.monotonic() < end
        health = requests.get(f"{address}/health", timeout=60).json()
        good = health["model_version"] == f"penchant-tiny/{version}"
        good = good and (health["status"] == "stale") == broken
        row = row + 1 if good else 0
    before = len(answers)
    while len(answers) < before + CLIENTS:
        assert time.monotonic() < end
        time.sleep(0.05)
    return before


def test_metrics_of_a_server_tell_of_requests_versions_and_swaps(registry, tmp_path):
    port = free_port()
    command = [
        *(sys.executable, "-m", "ray_jobs.serving", "--dataset", "tiny", "--port", str(port)),
        *("--replicas", "2", "--cpus-per-replica", "0.5", "--poll-s", "0.3"),
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, f"{address}/health", tmp_path / "serving.log"):
        one_request_and_a_list(address)
        for version, counted in (("2", "swaps"), ("3", "load_failures")):
            registry.set_registered_model_alias("penchant-tiny", "champion", version)
            end = time.monotonic() + 90
            while [n for _, n in scraped(address).get(f"penchant_serving_{counted}_total", [])] != [1, 1]:
                assert time.monotonic() < end, scraped(address)
                time.sleep(0.5)
        told = scraped(address)
    requested = {(labels["route"], labels["status"]): n for labels, n in told["penchant_serving_requests_total"]}
    assert requested["/recommend", "200"] == 2
    assert requested["/recommend", "422"] == 2
    assert {labels["model_version"] for labels, _ in told["penchant_serving_model_info"]} == {"penchant-tiny/2"}
    assert [value for _, value in told["penchant_serving_swaps_total"]] == [1, 1]
    assert sum(value for _, value in told["penchant_serving_batched_jobs_total"]) >= 3


def scraped(address):
    """Labels and values of the server's samples, by name."""
    found = collections.defaultdict(list)
    for family in text_string_to_metric_families(requests.get(f"{address}/metrics", timeout=60).text):
        for sample in family.samples:
            found[sample.name].append((sample.labels, sample.value))
    return dict(found)
