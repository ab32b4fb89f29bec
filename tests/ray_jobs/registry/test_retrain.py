import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from mlflow import MlflowClient
from retrained import registered_version

from ray_jobs.data.tables import publish, read_table
from ray_jobs.recommenders.bundle import load_bundle
from ray_jobs.registry import provenance, retraining, runs, versions
from ray_jobs.registry.comparison import Verdict, compare_curves, compare_weights
from ray_jobs.stages.evaluate import EvaluateSettings
from ray_jobs.tools import retrain
from schemas.sequences import SEQUENCES

NAME = "penchant-planted"


@pytest.fixture
def world(warehouse, empty_registry, tmp_path, monkeypatch):
    """The planted tables, an empty registry, and MLflow's artifacts in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_registry, Path(warehouse.settings.home) / "mlflow.db")
    return warehouse


def everything(client):
    """Versions and aliases of the data set's model."""
    model = client.get_registered_model(NAME)
    found = client.search_model_versions(f"name = '{NAME}'")
    return dict(model.aliases), sorted((v.version, v.last_updated_timestamp) for v in found)


def test_a_version_is_trained_again_from_what_it_records_and_is_equal(world, capsys):
    reference, trained = registered_version(world)
    client = MlflowClient()
    before = everything(client)
    moved = read_table(world.uri("sequences")).slice(0, 40)
    day = world.request("x").partition_date()
    publish(moved, SEQUENCES, world.uri("sequences"), {"partition_date": day}, world.request("x").identity())
    assert retrain.main(["--model", reference]) == 0, "the version reads its own tables, not the newest"
    said = capsys.readouterr().out
    assert f"Reproduction of {reference}: **equal**" in said
    assert everything(client) == before, "nothing is registered, tagged or moved"

    [made] = client.search_runs(
        [client.get_run(trained.outputs["mlflow_run_id"]).info.experiment_id],
        f"tags.`{retraining.OF_TAG}` = '{reference}'",
    )
    assert made.info.run_name == f"reproduction of {reference}"
    assert made.data.tags[retraining.VERDICT_TAG] == "equal"
    document = json.loads(Path(client.download_artifacts(made.info.run_id, "reproduction.json")).read_text())
    verdicts = {line["what"]: line["verdict"] for line in document["lines"]}
    assert set(verdicts.values()) == {"equal"}
    assert {"weights", "recommendations", "scores of the same lists", "test.ndcg_10", "valid.recall_20"} <= set(
        verdicts
    )


def test_the_record_is_complete(world, monkeypatch):
    reference, _ = registered_version(world)
    client = runs.connect(world.settings)
    found = versions.resolve(client, reference)
    bundle = load_bundle(versions.download_bundle(found, Path(world.settings.home) / "copy"))
    made = provenance.provenance_of(client, found, bundle)
    assert made.inputs["sequences"] == world.handoffs["sequences"]
    assert made.inputs["items"].rows == 60
    assert set(made.environment["libraries"]) >= {"python", "torch", "numpy", "ray"}
    assert made.ray["workers"] == world.settings.ray.workers
    assert made.training_data == {
        "catalogue": "interacted",
        "corrections": "none",
        "split": "last",
        "ties": "as_is",
        "ties_seed": "0",
    }
    assert made.evaluation == asdict(EvaluateSettings())
    assert provenance.missing_inputs(client, made) == []
    then = {**made.environment, "git_revision": "f" * 40, "machine": "abacus"}
    then["libraries"] = {**then["libraries"], "torch": "0.1"}
    told = provenance.changed_environment(replace(made, environment=then))
    assert any(f"the code was at {'f' * 40}" in one for one in told)
    assert any(one.startswith("torch was 0.1 and is") for one in told)
    assert any("the processor was abacus" in one for one in told)
    baked = {**made.environment, "git_revision": "f00d", "git_dirty": False}
    monkeypatch.setattr(provenance, "environment", lambda: baked)
    monkeypatch.setattr(provenance, "changed_files", lambda *_: None)
    assert provenance.changed_environment(replace(made, environment=baked)) == [], "the same image"
    monkeypatch.setattr(provenance, "environment", lambda: baked | {"git_dirty": True})
    assert "git cannot tell" in provenance.changed_environment(replace(made, environment=baked))[0]


def test_what_is_gone_is_named_before_anything_is_trained(world, capsys):
    reference, _ = registered_version(world)
    table = DeltaTable(world.uri("sequences"))
    [file] = [f for f in table.file_uris() if "2026-01-31" in f]
    rows = read_table(world.uri("sequences"))
    Path(file.removeprefix("file://")).unlink()
    with pytest.raises(SystemExit, match="2"):
        retrain.main(["--model", reference])
    said = capsys.readouterr().err
    assert f"table sequences at {world.uri('sequences')}, version {table.version()}: 1 of its 1 files are gone" in said
    assert "vacuumed" in said

    shutil.rmtree(world.uri("sequences"))
    fewer = rows.slice(0, 50)
    day = world.request("x").partition_date()
    made = publish(fewer, SEQUENCES, world.uri("sequences"), {"partition_date": day}, world.request("x").identity())
    assert made.version == world.handoffs["sequences"].version, "another table at the same version"
    with pytest.raises(SystemExit, match="2"):
        retrain.main(["--model", reference])
    assert "50 rows are in it for partition_date 2026-01-31, and 80 were when it was read" in capsys.readouterr().err

    shutil.rmtree(world.uri("items"))
    with pytest.raises(SystemExit, match="2"):
        retrain.main(["--model", reference])
    said = capsys.readouterr().err
    assert "2 of its inputs are missing" in said
    assert "no table items at" in said
    with pytest.raises(SystemExit, match="2"):
        retrain.main(["--model", f"{NAME}/7"])
    client = MlflowClient()
    [experiment] = [e for e in client.search_experiments() if e.name == runs.experiment_name("planted")]
    assert not client.search_runs([experiment.experiment_id], f"tags.`{retraining.OF_TAG}` LIKE '%'")


def test_differences_are_found(world):
    _, trained = registered_version(world)
    bundle = load_bundle(trained.outputs["bundle_uri"])
    other = load_bundle(trained.outputs["bundle_uri"])
    assert compare_weights(bundle, other, 0.0).verdict is Verdict.EQUAL
    state = {name: tensor.clone() for name, tensor in other.recommender.trained_state().items()}
    next(iter(state.values())).view(-1)[3] += 2
    other.recommender.load_trained_state(state)
    found = compare_weights(bundle, other, 0.5)
    assert (found.difference, found.verdict) == (2.0, Verdict.DIFFERS)
    assert compare_weights(bundle, other, 2.5).verdict is Verdict.WITHIN
    curve = [
        {"epoch": 1, "phase": "train", "loss": 2.0, "seconds": 3.0},
        {"epoch": 2, "phase": "train", "loss": 1.0, "seconds": 3.0},
    ]
    later = [curve[0], {**curve[1], "seconds": 9.0}]
    assert {line.verdict for line in compare_curves(curve, later, 0.0)} == {Verdict.EQUAL}
    assert compare_curves(curve, [curve[0], {**curve[1], "loss": 1.5}], 0.1)[0].difference == 0.5
    assert compare_curves(curve, curve[:1], 0.0)[0].what == "epochs"
