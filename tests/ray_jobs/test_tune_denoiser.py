import json

import pyarrow as pa
import pytest
from mlflow import MlflowClient
from odd_one_out import load_adapter
from safetensors.torch import load_file

from infra.errors import SettingError
from infra.progress import read_progress
from ray_jobs import tune_denoiser
from ray_jobs.data.tables import publish, read_table
from schemas.errors import DataError
from schemas.items import ITEMS

OVERRIDES = {
    "tune_denoiser.windows": 48,
    "tune_denoiser.heldout_share": 0.3,
    "tune_denoiser.tiny_width": 32,
    "tune_denoiser.tiny_layers": 2,
    "tune_denoiser.tiny_epochs": 2,
    "tune_denoiser.epochs": 2,
    "tune_denoiser.batch_size": 16,
}


def test_the_stage_end_to_end_and_again(warehouse, ray_session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow without a server keeps artifacts in the working folder.
    request = warehouse.request("tune_denoiser", overrides=OVERRIDES)
    report = tune_denoiser.run(request)
    assert report.status == "done"
    assert report.counts["windows"] == 48
    assert report.counts["steps"] == 6
    assert report.counts["epochs"] == 2
    assert report.counts["parameters"] == 2 * 2 * 8 * (32 + 32)
    for name in ("tuned", "base", "cooccurrence", "random"):
        assert 0 <= report.counts[f"{name}.auc"] <= 1
        assert 0 <= report.counts[f"{name}.replacement_hit_1"] <= 1
    model = load_adapter(report.outputs["base"], report.outputs["adapter_uri"])
    assert model.peft_config["default"].r == 8

    client = MlflowClient(warehouse.settings.mlflow.tracking_uri)
    run = client.get_run(report.outputs["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["lora_rank"] == "8"
    assert run.data.metrics["tuned.auc"] == report.counts["tuned.auc"]
    assert [len(client.get_metric_history(run.info.run_id, name)) for name in ("loss", "base.loss")] == [2, 2]
    kept = {name: client.list_artifacts(run.info.run_id, name) for name in ("", "adapter", "base")}
    assert {file.path for file in kept[""]} >= {"adapter", "base", "report.json"}
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= {f.path for f in kept["adapter"]}
    weights = client.download_artifacts(run.info.run_id, "adapter/adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in load_file(weights).values()) == report.counts["parameters"]
    done, total, note = read_progress(warehouse.settings.home, "tune_denoiser", 0.0)
    assert done == total
    assert note.startswith("AUC ")

    again = tune_denoiser.run(request)
    assert again.status == "reused"
    assert json.dumps(again.counts) == json.dumps(report.counts)
    assert again.outputs == report.outputs
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2


def test_what_cannot_be_tuned_is_refused_before_anything_is_spent(warehouse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub = warehouse.request("tune_denoiser", overrides={"tune_denoiser.base": "hub:no/model"})
    with pytest.raises(SettingError, match=r"tune_denoiser\.base='hub:no/model' could not be loaded"):
        tune_denoiser.run(hub)
    day = hub.partition_date()
    items = read_table(warehouse.uri("items"), filters=[("partition_date", "=", day)]).drop_columns("title")
    nameless = items.append_column("title", pa.nulls(items.num_rows, pa.string()))
    publish(nameless, ITEMS, warehouse.uri("items"), {"partition_date": day}, hub.identity())
    with pytest.raises(DataError, match="no item of this data set has one"):
        tune_denoiser.run(warehouse.request("tune_denoiser"))
