import json
import shutil
import subprocess
import sys
from dataclasses import replace

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from infra.settings import REPOSITORY
from ray_jobs import register
from ray_jobs.registry import promotion
from schemas.errors import DataError

NAME = "penchant-tiny"

CLEAN = """
import json, sys
repository, tracking_uri = sys.argv[1:3]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f)]
sys.path = [p for p in sys.path if p and p != repository]
try:
    import ray_jobs
    raise SystemExit("the project is still on the path")
except ModuleNotFoundError:
    pass
import mlflow, pandas as pd
mlflow.set_tracking_uri(tracking_uri)
model = mlflow.pyfunc.load_model("models:/penchant-tiny@champion")
import ray_jobs.registry.served
assert not ray_jobs.__file__.startswith(repository), ray_jobs.__file__
assert "ray" not in sys.modules and "deltalake" not in sys.modules
answer = model.predict(pd.DataFrame(json.loads(sys.argv[3])), params={"k": 4})
print(json.dumps(answer.to_dict("list")))
"""


def test_a_version_a_person_can_use(registered):
    _, request, report = registered
    assert report.status == "done"
    assert report.outputs["model_name"] == NAME
    assert report.outputs["version"] == "1"
    assert report.outputs["alias"] == "champion"
    assert report.outputs["decision"].startswith("promoted: NDCG@10 0.5508 is above popularity's")
    assert report.counts["versions_made"] == 1
    assert report.counts["sasrec.test.ndcg_10"] > report.counts["popularity.test.ndcg_10"]

    client = MlflowClient()
    version = client.get_model_version_by_alias(NAME, "champion")
    assert promotion.version_at(client, NAME, "champion") == "1"
    assert promotion.version_at(client, NAME, "challenger") == "1"
    for key, value in {
        "penchant.run_identity": request.upstream["train_recommender.run_identity"],
        "penchant.dataset": "tiny",
        "penchant.partition": "2026-01-31",
        "penchant.recipe": "sasrec",
        "penchant.decision": "promoted",
    }.items():
        assert version.tags[key] == value
    assert float(version.tags["penchant.test.ndcg_10"]) == pytest.approx(report.counts["sasrec.test.ndcg_10"])
    card = version.description
    assert len(card) <= 5000
    for words in (
        "# sasrec for tiny",
        "| **sasrec, given history** |",
        "| popularity, given history |",
        "models:/penchant-tiny/1",
    ):
        assert words in card
    assert f"| sequences | {request.inputs['sequences'].version} | 24 |" in card
    assert "8 users have preferences" in card

    run_id = request.upstream["train_recommender.mlflow_run_id"]
    assert {f.path for f in client.list_artifacts(run_id, "plots")} == {
        f"plots/{name}.png" for name in ("loss", "metrics", "slices")
    }
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["penchant.model_version"] == "penchant-tiny/1"
    assert client.get_registered_model(NAME).tags["penchant.dataset"] == "tiny"

    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    assert [spec.name for spec in model.metadata.signature.inputs] == ["history", "preference", "times", "asked_at"]
    assert [spec.name for spec in model.metadata.signature.params] == ["k", "exclude_seen"]
    example = model.metadata.load_input_example(model.metadata.get_model_info().model_uri)
    assert example["preference"].tolist() == ["I like jazz. I dislike loud amplifiers"]
    assert example["history"].tolist() == [["i00", "i03", "i06", "i09", "i12"]]


def test_a_clean_process_gives_the_same(registered, monkeypatch):
    world, _, _ = registered
    question = {"history": [["i00", "i03"], [], ["unknown", "i04"]], "preference": ["I like jazz", None, ""]}
    here = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(pd.DataFrame(question), params={"k": 4})
    command = [sys.executable, "-c", CLEAN, str(REPOSITORY), world.settings.mlflow.tracking_uri, json.dumps(question)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=world.home, check=False)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    assert there["item_ids"] == here["item_ids"].tolist()
    assert there["titles"] == here["titles"].tolist()
    assert there["scores"] == here["scores"].tolist()
    assert [len(row) for row in there["item_ids"]] == [4, 4, 4]
    assert not set(there["item_ids"][0]) & {"i00", "i03"}


def test_a_retry_makes_nothing(registered):
    _, request, first = registered
    again = register.run(request)
    assert again.status == "reused"
    assert again.outputs == first.outputs
    assert again.counts == {"versions_made": 0}
    assert len(MlflowClient().search_model_versions(f"name = '{NAME}'")) == 1


@pytest.mark.parametrize("moment", ["create_model_version", "set_registered_model_alias", "set_model_version_tag"])
def test_a_crash_leaves_what_the_next_try_completes(world, monkeypatch, moment):
    trained = world.train()
    world = world.evaluate({f"sasrec@{trained['run_identity']}": lambda n: 1, "popularity@m": lambda n: 2 + n})
    request = world.register_request(trained)

    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as crash:
        crash.setattr(MlflowClient, moment, die)
        with pytest.raises(Killed):
            register.run(request)
    report = register.run(request)
    client = MlflowClient()
    assert report.status == "done"
    assert report.outputs["alias"] == "champion"
    assert [str(v.version) for v in client.search_model_versions(f"name = '{NAME}'")] == ["1"]
    experiment = client.get_experiment_by_name("penchant/tiny").experiment_id
    assert len(client.search_logged_models([experiment])) == 1


def test_a_worse_model_stays_challenger(registered):
    world, _, _ = registered
    worse = world.train(generation=1, seed=1)
    world = world.evaluate({f"sasrec@{worse['run_identity']}": lambda n: 2 + n % 6})
    report = register.run(world.register_request(worse))
    assert report.outputs["version"] == "2"
    assert report.outputs["alias"] == "challenger"
    assert "is below" in report.outputs["decision"]
    assert "champion version 1" in report.outputs["decision"]
    client = MlflowClient()
    assert promotion.version_at(client, NAME, "champion") == "1"
    assert client.get_model_version(NAME, "2").tags["penchant.decision"] == "kept"

    better = world.train(generation=2, seed=2)
    world = world.evaluate({f"sasrec@{better['run_identity']}": lambda n: 1})
    report = register.run(world.register_request(better))
    assert (report.outputs["version"], report.outputs["alias"]) == ("3", "champion")


def test_below_popularity_there_is_no_champion(world):
    trained = world.train()
    world = world.evaluate({f"sasrec@{trained['run_identity']}": lambda n: 3, "popularity@m": lambda n: 1})
    report = register.run(world.register_request(trained))
    assert report.outputs["alias"] == "challenger"
    assert "not above popularity" in report.outputs["decision"]
    assert promotion.version_at(MlflowClient(), NAME, "champion") is None


def test_what_is_missing_is_named(world):
    trained = world.train()
    with pytest.raises(DataError, match=r"train_recommender\.run_identity"):
        register.run(world.request("register", {"train_recommender.bundle_uri": "x"}))
    with pytest.raises(DataError, match="run the stage 'evaluate'"):
        register.run(world.register_request(trained))
    world = world.evaluate({"popularity@m": lambda n: 1})
    with pytest.raises(DataError, match=r"no rows of the model of run .*it has: popularity@m"):
        register.run(world.register_request(trained))
    with pytest.raises(DataError, match="no test rows of popularity"):
        register.run(only_own(world, trained))
    client = MlflowClient()
    assert promotion.version_at(client, NAME, "champion") is None


def only_own(world, trained):
    """A request whose `evaluations` has the model's own rows and no baseline's, in a world of its own."""
    bare = replace(world, handoffs={k: v for k, v in world.handoffs.items() if k != "evaluations"})
    uri = bare.settings.table_uri("tiny", "evaluations")
    shutil.rmtree(uri)
    return bare.evaluate({f"sasrec@{trained['run_identity']}": lambda n: 1}).register_request(trained)


def test_a_model_of_shuffled_ties_is_registered_and_never_promoted(world):
    trained = world.train()
    world = world.evaluate(
        {
            f"sasrec@{trained['run_identity']}@ties-shuffled-0": lambda _: 1,
            "popularity@manual@ties-shuffled-0": lambda n: 2 + n,
        }
    )
    report = register.run(world.register_request(trained))
    assert report.outputs["decision"].startswith("kept: trained on histories with other targets (ties-shuffled-0)")
    assert promotion.version_at(MlflowClient(), NAME, "champion") is None
