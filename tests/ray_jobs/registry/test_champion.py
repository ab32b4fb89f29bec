"""A champion of an earlier day on the challenger's day."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from ray_jobs import evaluate, register
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.tables import read_table
from ray_jobs.data.training_data import read_training_data
from ray_jobs.evaluation.metrics import METRICS
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recommenders.bundle import save_bundle
from ray_jobs.registry import runs
from schemas.stage_request import StageRequest

NAME = "penchant-tiny"
NEXT = "2026-02-01"
NEW = "i99"


def _rows(world, name):
    rows = read_table(world.settings.table_uri("tiny", name)).to_pylist()
    return [{key: value for key, value in row.items() if key != "partition_date"} for row in rows]


@pytest.fixture
def tomorrow(registered):
    """The next day: every fourth user has chosen an item that is new; a challenger was trained on it."""
    world, _, _ = registered
    day = {"partition_date": dt.date.fromisoformat(NEXT)}
    items, rows = (_rows(world, name) for name in ("items", "sequences"))
    items.append(items[0] | {"item_id": NEW})
    for number, row in enumerate(rows):
        unseen = next(item["item_id"] for item in items if item["item_id"] not in row["item_ids"])
        row["item_ids"].append(NEW if number % 4 == 0 else unseen)
        row["occurred_at"].append(row["occurred_at"][-1] + dt.timedelta(days=1))
        row["ratings"].append(5.0)
        row["tied_with_previous"].append(False)
        for name in ("length", "valid_position", "test_position", "time_valid_start", "time_test_start"):
            row[name] += 1
    everything = tuple(item["item_id"] for item in items)
    world = world.publish("items", items, day).publish("sequences", rows, day)
    inputs = {name: world.handoffs[name] for name in ("items", "sequences")}
    request = StageRequest(stage="train", dataset="tiny", partition=NEXT, recipe="sasrec", inputs=inputs)
    run_id = runs.find_or_start(world.settings, request, "sasrec", {})
    torch.manual_seed(5)
    model = SASRec(SASRecSettings(max_history=6, width=8, layers=1), Catalogue(everything, everything, everything))
    identity = request.identity().key()
    uri = save_bundle(world.home / "models" / identity, model, {"run_identity": identity})
    trained = {"bundle_uri": str(uri), "mlflow_run_id": run_id, "run_identity": identity}
    upstream = {f"train_recommender.{key}": value for key, value in trained.items()}
    return world, replace(request, stage="evaluate", recipe="", upstream=upstream)


def test_a_champion_of_yesterday_is_ranked_on_todays_users_and_the_gate_says_so(tomorrow):
    world, request = tomorrow
    asked = replace(request, upstream={**request.upstream, "champion.model": f"{NAME}/1"})
    report = evaluate.run(asked)
    assert report.outputs["champion"] == f"{NAME}/1"
    assert report.outputs["champion_unknown_targets"] == "6"
    assert report.counts["champion.unknown_targets"] == 6
    assert 0 < float(report.outputs["champion_coverage_10"]) == report.counts["champion.test.coverage_10"] <= 30 / 31
    table = read_table(world.settings.table_uri("tiny", "measurements")).to_pylist()
    rows = [row for row in table if row["model"] == f"champion@{NAME}/1"]
    assert len(rows) == 2 * 24 * len(METRICS)
    assert {row["partition_date"] for row in rows} == {dt.date.fromisoformat(NEXT)}
    missed = [row["unit_id"] for row in rows if (row["split"], row["metric"], row["value"]) == ("test", "mrr", 0)]
    assert sorted(missed) == ["u00", "u04", "u08", "u12", "u16", "u20"]
    assert not any("champion" in name for name in MlflowClient().get_run(_run(request)).data.metrics)
    assert report.outputs["champion_words_success"] == report.outputs["train_recommender_words_success"] == "0.000000"
    again = evaluate.run(asked)
    assert (again.status, again.counts, again.outputs) == ("reused", report.counts, report.outputs)

    upstream = request.upstream | {f"evaluate.{key}": value for key, value in report.outputs.items()}
    registering = replace(request, stage="register", upstream=upstream)
    first = register.run(registering)
    assert first.outputs["version"] == "2"
    path = MlflowClient().download_artifacts(_run(request), "promotion.json", str(world.home))
    checks = {check["name"]: check for check in json.loads(Path(path).read_text())["checks"]}
    quality = checks["NDCG@10 beside the champion"]
    assert "of champion version 1 (which misses 6 targets that it does not know), 24 users" in quality["note"]
    assert quality["champion"] == pytest.approx(report.counts["champion.test.ndcg_10"], abs=1e-5)
    assert checks["coverage of ten"]["champion"] == report.counts["champion.test.coverage_10"]
    assert checks["day"]["verdict"] == checks["follows words"]["verdict"] == "passed", "neither hears a word"
    assert register.run(registering).status == "reused"


def test_a_champion_of_another_split_is_not_ranked_and_not_replaced(tomorrow, tmp_path):
    world, request = tomorrow
    asked = replace(request, upstream={**request.upstream, "champion.model": f"{NAME}/1"})
    folder = tmp_path / "downloaded"
    folder.mkdir()
    data = read_training_data(world.settings, asked)
    champion, trained_on = evaluate._champion(world.settings, asked, replace(data, version="time-split"), folder)
    assert (champion.model, trained_on) == (f"champion@{NAME}/1@time-split", "")
    report = evaluate.run(request)
    upstream = request.upstream | {f"evaluate.{key}": value for key, value in report.outputs.items()}
    upstream |= {"evaluate.champion": f"{NAME}/1", "evaluate.champion_data_version": "time-split"}
    decision = register.run(replace(request, stage="register", upstream=upstream)).outputs["decision"]
    assert decision.startswith("kept: champion version 1 was trained on histories split 'time-split'")


def _run(request):
    return request.upstream["train_recommender.mlflow_run_id"]


def test_nobody_is_compared_with_itself_or_with_one_that_has_seen_more(tomorrow, tmp_path):
    world, request = tomorrow
    folder = tmp_path / "downloaded"
    folder.mkdir()
    data = read_training_data(world.settings, request)

    def compared(data=data, **upstream):
        asked = replace(request, upstream={**request.upstream, **upstream})
        champion, _ = evaluate._champion(world.settings, asked, data, folder)
        return None if champion is None else champion.model

    champion = {"champion.model": f"{NAME}/1"}
    assert compared() is None
    assert compared(**champion) == f"champion@{NAME}/1"
    assert compared(replace(data, version="ties-shuffled-0"), **champion) is None
    client = MlflowClient()
    client.set_model_version_tag(NAME, "1", "penchant.partition", "2026-02-02")
    assert compared(**champion) is None
    client.set_model_version_tag(NAME, "1", "penchant.partition", "2026-01-31")
    client.set_model_version_tag(NAME, "1", "penchant.run_identity", request.upstream["train_recommender.run_identity"])
    assert compared(**champion) is None
