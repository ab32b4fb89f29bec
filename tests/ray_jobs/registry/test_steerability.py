import datetime as dt
from dataclasses import replace

import pytest
from deltalake import DeltaTable
from mlflow import MlflowClient

from infra.errors import SettingError
from ray_jobs import steerability
from schemas.preference_benchmark import AXES, SENTIMENT

NAME = "penchant-tiny"
DAY = dt.date(2026, 1, 31)


def _sample(axis, number, split="test"):
    other = (number + 1) % 3
    return {
        "axis": axis,
        "split": split,
        "sample_id": f"{number}",
        "history_user_id": f"u{number:02}",
        "history_end": 3,
        "target_item_id": f"i{number + 4:02}",
        "preference": f"Prefers {number}",
        "opposite": f"Avoids {number}" if axis == SENTIMENT else None,
        "latest": "Prefers jazz",
        "random": f"Prefers {other}",
        "random_opposite": f"Avoids {other}" if axis == SENTIMENT else None,
        "partner_item_id": None,
        "similarity": 0.1,
        "seen_in_training": False,
    }


@pytest.fixture
def asked(registered):
    world, _, _ = registered
    rows = [_sample(axis, number) for axis in AXES for number in range(3)] + [_sample(AXES[0], 0, "valid")]
    probe = {"probe": "jazz", "kind": "category", "preference": "Prefers jazz", "opposite": "Avoids jazz"}
    day = {"partition_date": DAY}
    world = world.publish("preference_benchmark", rows, day)
    return world.publish("steering_probes", [probe | {"item_ids": ["i01", "i02"]}], day)


def _runs():
    client = MlflowClient()
    experiment = client.get_experiment_by_name("penchant/tiny")
    found = client.search_runs([experiment.experiment_id])
    return [run for run in found if run.info.run_name.startswith("steering")]


def test_a_version_gets_rows_a_run_and_tags_and_a_second_run_adds_nothing(asked):
    request = asked.request("steerability", {"versions.models": f"{NAME}/1"})
    report = steerability.run(request)
    assert report.status == "done"
    assert report.counts["rows"] == 3 * (4 * 5 + 4) == report.handoffs["preference_evaluations"].rows
    assert report.counts["sasrec.test.recommendation.lift_over_none"] == 0, "SASRec reads no text"
    assert report.counts["sasrec.success.category"] == 0
    table = DeltaTable(asked.settings.table_uri("tiny", "preference_evaluations"))
    assert set(table.to_pyarrow_table()["model"].to_pylist()) == {f"{NAME}/1"}

    client = MlflowClient()
    tags = client.get_model_version(NAME, "1").tags
    (run,) = _runs()
    assert tags["penchant.steering.run"] == run.info.run_id
    assert {f"penchant.steering.{axis}" for axis in AXES} <= set(tags)
    assert float(tags["penchant.steering.fine_steering.lift"]) == 0
    assert run.info.status == "FINISHED"
    files = {f.path for folder in ("", "plots", "tables") for f in client.list_artifacts(run.info.run_id, folder)}
    assert {f"plots/{axis}.png" for axis in AXES} | {f"tables/{axis}.csv" for axis in AXES} <= files
    assert {"report.html", "plots/properties.png"} <= files

    again = steerability.run(request)
    assert again.status == "reused"
    assert again.counts == report.counts
    assert DeltaTable(table.table_uri).version() == table.version()
    assert len(_runs()) == 1


def test_the_champion_is_asked_where_nobody_is_named_and_strangers_are_refused(asked):
    report = steerability.run(asked.request("steerability", {}))
    assert report.outputs["models"] == f"{NAME}/1"
    request = asked.request("steerability", {}, overrides={"steerability.models": [f"{NAME}@nobody"]})
    with pytest.raises(SettingError, match="no model version"):
        steerability.run(request)


def test_both_splits_are_asked_apart_and_a_split_without_samples_says_what_to_do(asked):
    request = asked.request("steerability", {}, overrides={"steerability.splits": ["valid", "test"]})
    counts = steerability.run(request).counts
    assert counts["samples"] == 3 * len(AXES) + 1
    assert "sasrec.valid.recommendation.lift_over_none" in counts
    rows = [_sample(AXES[0], 0, "valid")]
    world = asked.publish("preference_benchmark", rows, {"partition_date": DAY})
    with pytest.raises(SettingError, match=r"no sample of the split test.*review_lines\.max_users"):
        steerability.run(replace(request, overrides={}, inputs=world.handoffs))


def test_a_model_is_asked_before_it_is_registered_beside_the_champion(asked):
    trained = asked.train(generation=1, seed=1)
    given = {f"train_recommender.{key}": value for key, value in trained.items()}
    request = asked.request("steerability", given | {"champion.model": f"{NAME}/1"})
    report = steerability.run(request)
    identity = trained["run_identity"]
    assert report.outputs["models"] == f"{identity},{NAME}/1"
    table = DeltaTable(asked.settings.table_uri("tiny", "preference_evaluations")).to_pyarrow_table()
    assert set(table["model"].to_pylist()) == {identity, f"{NAME}/1"}
    tags = MlflowClient().get_run(trained["mlflow_run_id"]).data.tags
    assert {f"penchant.steering.{axis}" for axis in AXES} <= set(tags), "until it is registered its run keeps them"
    assert tags["penchant.steering.run"] != MlflowClient().get_model_version(NAME, "1").tags["penchant.steering.run"]
    assert len(_runs()) == 2
    assert steerability.run(request).status == "reused"
    assert len(_runs()) == 2

    first = asked.request("steerability", given)
    assert steerability.run(first).outputs["models"] == identity, "there is no champion yet"
