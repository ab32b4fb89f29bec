"""Real training on Ray, twice: bit-equal on CPUs, with a warm start, and no third time."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from retrained import registered_version

from ray_jobs.registry import retraining
from ray_jobs.registry.comparison import Verdict
from ray_jobs.registry.provenance import Provenance
from ray_jobs.tools import retrain
from schemas.errors import DataError
from tests.ray_jobs.conftest import empty_registry, planted, ray_session, warehouse  # noqa: F401


@pytest.fixture
def world(warehouse, empty_registry, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_registry, Path(warehouse.settings.home) / "mlflow.db")
    return warehouse


def lines_of(done):
    return {line.what: line for line in done.comparison.lines}


def test_a_trained_version_is_reproduced_bit_for_bit(world, ray_session, capsys):  # noqa: F811
    first, trained = registered_version(world, "sasrec")
    second, warm = registered_version(
        world, "sasrec", {"sasrec.warm_start": "penchant-planted@challenger"}, generation=1
    )
    assert (first, second) == ("penchant-planted/1", "penchant-planted/2")
    assert warm.counts["warm_start_items"] == warm.counts["items"] == 56

    done = retraining.reproduce(world.settings, second)
    assert done.comparison.verdict is Verdict.EQUAL, done.comparison.table()
    assert (done.reused, done.steps) == (False, warm.counts["steps"])
    lines = lines_of(done)
    assert lines["weights"].difference == lines["final loss"].difference == lines["recommendations"].difference == 0
    assert lines["loss, epoch by epoch"].before == "2 epochs"
    folders = {path.name for path in Path(world.settings.ray.storage).iterdir() if path.name.startswith("retrain--")}
    assert len(folders) == 1
    changed = {path: path.stat().st_mtime_ns for path in Path(world.settings.ray.storage).rglob("*")}

    assert retrain.main(["--model", second]) == 0
    assert "trained before, compared now" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path(world.settings.ray.storage).rglob("*")} == changed
    client = MlflowClient()
    runs = client.search_runs(
        [client.get_run(done.run_id).info.experiment_id], f"tags.`{retraining.OF_TAG}` = '{second}'"
    )
    assert [run.info.run_id for run in runs] == [done.run_id]
    assert len(client.search_model_versions("name = 'penchant-planted'")) == 2

    # A negative control: with another seed recorded, the same command says that they differ.
    original = Provenance.request

    def other_seed(self, *args, **given):
        request = original(self, *args, **given)
        return replace(request, overrides={**request.overrides, "sasrec.seed": 1})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Provenance, "request", other_seed)
        assert retrain.main(["--model", first]) == 1
    said = capsys.readouterr().out
    assert f"Reproduction of {first}: **differs** (trained in {trained.counts['steps']} steps" in said

    client.delete_model_version("penchant-planted", "1")
    with pytest.raises(DataError, match=r"the version that it started from, penchant-planted/1: MLflow has no model"):
        retraining.reproduce(world.settings, second)
