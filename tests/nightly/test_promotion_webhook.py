"""MLflow's own webhooks: a real server, a real receiver, and a restart between them."""

import base64
import hashlib
import hmac
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from receivers import webhook
from served_registry import free_port, running

from infra.errors import SettingError
from infra.local_environment import Ports, local_environment
from infra.settings import load_settings
from ray_jobs.tools import promotion_webhook

SECRET = "shared between the two"


@contextmanager
def server(home, environment, monkeypatch):
    port = free_port()
    for name in ("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"):
        monkeypatch.setenv(name, environment[name])
    command = [
        *(str(Path(sys.executable).with_name("mlflow")), "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"),
        *(f"--backend-store-uri=sqlite:///{home}/mlflow.db", f"--artifacts-destination={home}/artifacts"),
    ]
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", address)
    with running(command, f"{address}/health", home / "server.log"):
        yield MlflowClient(address, address)


def wait_for(got, count):
    end = time.monotonic() + 30
    while len(got) < count and time.monotonic() < end:
        time.sleep(0.1)
    return got


def signed(headers, body):
    content = b".".join([headers["X-MLflow-Delivery-Id"].encode(), headers["X-MLflow-Timestamp"].encode(), body])
    digest = hmac.new(SECRET.encode(), content, hashlib.sha256).digest()
    return headers["X-MLflow-Signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_a_promotion_is_told_once_signed_and_after_a_restart_too(tmp_path, monkeypatch, capsys):
    environment = local_environment(tmp_path, Ports())
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv(promotion_webhook.SECRET_VARIABLE, SECRET)
    with webhook() as (url, got):
        with server(tmp_path, environment, monkeypatch) as client:
            for _ in range(2):
                promotion_webhook.main([f"--url={url}"])
            assert len(client.list_webhooks()) == 1, "the second time it was brought up to date"
            assert len(got) == 2, "a test message each"
            client.create_registered_model("penchant-shop")
            run = client.create_run("0").info
            client.create_model_version("penchant-shop", source=f"{run.artifact_uri}/model", run_id=run.run_id)
            client.set_registered_model_alias("penchant-shop", "champion", "1")
            events = [document for _, _, document in wait_for(got, 4)[2:]]
            told = {f"{event['entity']}.{event['action']}": event["data"] for event in events}
            assert set(told) == {"model_version.created", "model_version_alias.created"}
            moved = told["model_version_alias.created"]
            assert (moved["name"], moved["alias"], moved["version"]) == ("penchant-shop", "champion", "1")
        with server(tmp_path, local_environment(tmp_path, Ports()), monkeypatch) as client:
            client.set_registered_model_alias("penchant-shop", "champion", "1")
            assert len(wait_for(got, 5)) == 5
            assert all(signed(headers, body) for headers, body, _ in got)
            promotion_webhook.main(["--remove"])
            assert client.list_webhooks() == []


def test_an_address_that_mlflow_does_not_send_to_is_one_clear_message(tmp_path, monkeypatch):
    refused = pytest.raises(SettingError, match=r"MLflow refuses the webhook: .*Invalid webhook URL scheme")
    with server(tmp_path, local_environment(tmp_path, Ports()), monkeypatch), refused:
        promotion_webhook.ensure(load_settings(), "x", "http://127.0.0.1:1/")
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", "sqlite:///x.db")
    with pytest.raises(SettingError, match="webhooks are sent by MLflow's server"):
        promotion_webhook.ensure(load_settings(), "x", "https://example.org/")
