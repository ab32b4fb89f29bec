"""Recipes side by side on a day of a data set: what the page says, and what MLflow keeps of it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from planted_warehouse import DATASET, PARTITION

from ray_jobs.evaluation.metrics import paired
from ray_jobs.reproduction.__main__ import main
from ray_jobs.reproduction.comparison import EXPERIMENT
from ray_jobs.reproduction.day_data import read_day
from ray_jobs.reproduction.experiments import COMPARED, make_experiment
from ray_jobs.reproduction.identity import data_hash
from ray_jobs.reproduction.results import read_results
from ray_jobs.reproduction.rows import rows_of
from schemas.errors import DataError
from schemas.recipes import RECIPES, of_kind

PLANTED = f"{DATASET}@{PARTITION}"
TINY = json.dumps({"sasrec.epochs": 2, "sasrec.width": 8})


def compare(name, recipes, *more):
    return main(["--datasets", name, "--recipes", recipes, "--scale", "defaults", "--cpus", "1", *more])


def test_recipes_are_compared_on_a_day_of_a_data_set(warehouse, here, capsys):
    assert compare(PLANTED, "popularity,sasrec", "--seeds", "0,1", "--overrides", TINY) == 0
    said = capsys.readouterr().out
    kept = read_results(Path(warehouse.settings.home) / "reproduction")
    rows = {row.first.label: row for row in rows_of(kept)}
    assert [result.seed for result in rows["popularity"].results] == [0, 1]
    lines = [line for line in said.splitlines() if line.startswith("| **")]
    best_first = sorted(rows.values(), key=lambda row: -row.mean("ndcg_10"))
    assert [re.match(r"\| \*\*(\w+)", line)[1] for line in lines] == [row.first.label for row in best_first]
    difference = paired(rows["popularity"].gains["ndcg_10"], rows["sasrec"].gains["ndcg_10"]).difference
    assert difference.signed() in next(line for line in lines if "**popularity**" in line)
    assert all(result.request_ms > 0 for row in rows.values() for result in row.results)
    assert len(here) == 2
    assert compare(PLANTED, "popularity,sasrec", "--seeds", "0,1", "--overrides", TINY) == 0
    assert len(here) == 2, "what was compared once is not trained again"
    with pytest.raises(DataError, match="2031-01-01"):
        read_day(warehouse.settings, f"{DATASET}@2031-01-01")


def test_the_page_is_in_mlflow_once(tmp_path, benchmark, monkeypatch, empty_registry, here, capsys):
    monkeypatch.setenv("PENCHANT_MLFLOW__TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert compare("beauty", "popularity", "--folder", str(benchmark), "--log") == 0
    assert "logged to MLflow: beauty" in capsys.readouterr().out
    found = mlflow.search_runs(experiment_names=[EXPERIMENT], output_format="list")
    (run,) = found
    (one,) = read_results(tmp_path / "home" / "reproduction")
    assert run.data.metrics["ndcg_10.popularity"] == one.result.metrics["unseen"]["ndcg_10"][0]
    page = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/comparison.md")
    assert page == (tmp_path / "home" / "reproduction" / "comparison.md").read_text()
    names = {one.path for one in mlflow.MlflowClient().list_artifacts(run.info.run_id, "plots")}
    assert names == {"plots/comparison.png"}


def test_every_recipe_is_compared_without_a_setting_of_its_own():
    assert set(of_kind("recommender")) - set(COMPARED) == {"prorec", "setrec"}
    for label in COMPARED:
        experiment = make_experiment("beauty", label, 3, "defaults", {})
        assert experiment.settings.seed == 3
        assert RECIPES[experiment.recipe].kind == "recommender"
    assert make_experiment("beauty", "liger", 0, "defaults", {}).settings.dense
    assert not make_experiment("beauty", "tiger_decoder", 0, "defaults", {}).settings.dense


def test_preferences_are_part_of_the_data_of_those_who_read_them_only(warehouse):
    catalogue, histories = read_day(warehouse.settings, PLANTED)
    assert any(histories.preferences)
    silent = replace(histories, preferences=({},) * len(histories))
    for reads in (True, False):
        hashes = {data_hash(catalogue, one, texts=True, preferences=reads) for one in (histories, silent)}
        assert len(hashes) == 1 + reads
