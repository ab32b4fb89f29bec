"""What `mlflow models serve` answers, asked of its app without a process around it, and the alias that is served."""

import socket
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

from infra.errors import SettingError
from ray_jobs.registry import runs, versions
from ray_jobs.serving.__main__ import main
from ray_jobs.serving.hot_swap import HotSwap, RegistrySource


def test_json_in_and_json_out(registered):
    model = mlflow.pyfunc.load_model("models:/penchant-tiny@champion")
    with TestClient(scoring_server.init(model), raise_server_exceptions=False) as client:
        rows = [{"history": ["i00", "i07"], "preference": "I like jazz."}, {"history": []}]
        columns = ["history", "preference"]
        data = [[row["history"], row.get("preference")] for row in rows]
        split = {"dataframe_split": {"columns": columns, "data": data}, "params": {"k": 4}}
        answers = client.post("/invocations", json=split).json()["predictions"]
        assert [len(answer["item_ids"]) for answer in answers] == [4, 4]
        assert not {"i00", "i07"} & set(answers[0]["item_ids"])
        assert answers[0]["titles"][0] == f"Title of {answers[0]['item_ids'][0]}"
        assert client.post("/invocations", json={"inputs": rows, "params": {"k": 4}}).json()["predictions"] == answers
        seen = {"inputs": rows, "params": {"k": 30, "exclude_seen": False}}
        assert len(client.post("/invocations", json=seen).json()["predictions"][0]["item_ids"]) == 30
        wrong = client.post("/invocations", json={"inputs": [{"history": "i00"}]})
        assert wrong.status_code == 400
        assert "Expected data to be list" in wrong.text


def test_the_server_follows_the_alias_of_the_registry(registered):
    world, _, _ = registered
    client = MlflowClient()
    uri = world.settings.mlflow.tracking_uri
    swap = HotSwap(RegistrySource(uri, "penchant-tiny", "champion"), retry_s=60)
    assert swap.live.version == "penchant-tiny/1"
    assert len(swap.live.bundle.catalogue) == 30
    source = client.get_model_version("penchant-tiny", "1").source
    client.create_model_version("penchant-tiny", source)
    client.create_model_version("penchant-tiny", f"{world.home}/nothing-here")
    for version, live in (("2", "2"), ("3", "2")):
        client.set_registered_model_alias("penchant-tiny", "champion", version)
        swap.refresh()
        assert swap.live.version == f"penchant-tiny/{live}"
    assert "version penchant-tiny/3 does not load" in swap.problem
    assert "was not logged by this project" in swap.problem
    client.delete_registered_model_alias("penchant-tiny", "champion")
    swap.refresh()
    assert "no model version 'penchant-tiny@champion'" in swap.problem
    with pytest.raises(SettingError, match="no model version"):
        HotSwap(RegistrySource(uri, "penchant-tiny", "nobody"), retry_s=60)


def test_only_the_bundle_of_a_version_is_downloaded(registered, tmp_path):
    found = versions.resolve(MlflowClient(), "penchant-tiny/1")
    whole = mlflow.artifacts.download_artifacts(artifact_uri="models:/penchant-tiny/1", dst_path=str(tmp_path / "all"))
    assert (Path(whole) / "code").is_dir()
    bundle = versions.download_bundle(found, tmp_path / "copy")
    copied = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert bundle / "recipe.json" in copied
    assert all(path.is_relative_to(bundle) for path in copied)


def test_a_server_that_cannot_start_says_why(settings, tmp_path, capsys):
    client = runs.connect(settings)
    client.create_registered_model("penchant-tiny")
    client.create_model_version("penchant-tiny", f"{tmp_path}/model")
    client.set_registered_model_alias("penchant-tiny", "champion", "1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for flags, words in (
            (["--alias", "nobody"], "no model version 'penchant-tiny@nobody'"),
            (["--replicas", "0"], "serving.replicas is 0"),
            (["--port", port], f"serving.port {port} is busy"),
        ):
            with pytest.raises(SystemExit, match="2"):
                main(["--dataset", "tiny", *flags])
            assert words in capsys.readouterr().err
