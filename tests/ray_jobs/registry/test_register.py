import datetime as dt
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pyarrow.compute as pc
import pytest
from mlflow import MlflowClient

from infra.settings import REPOSITORY
from ray_jobs import register
from ray_jobs.data.day_states import input_partition
from ray_jobs.data.tables import read_table
from ray_jobs.registry import aliases, runs
from ray_jobs.registry.judging import choose
from ray_jobs.registry.results import summarise
from ray_jobs.registry.settings import PromotionSettings
from schemas.errors import DataError

NAME = "penchant-tiny"
DATE = dt.date(2026, 1, 31)

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
    assert aliases.version_at(client, NAME, "champion") == "1"
    assert aliases.version_at(client, NAME, "challenger") == "1"
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
        f"plots/{name}.png" for name in ("metrics", "slices")
    }
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["penchant.model_version"] == "penchant-tiny/1"
    assert client.get_registered_model(NAME).tags["penchant.dataset"] == "tiny"

    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    names = [spec.name for spec in model.metadata.signature.inputs]
    assert names == ["history", "preference", "known", "times", "asked_at", "allow", "deny", "where"]
    assert [spec.name for spec in model.metadata.signature.params] == ["k", "exclude_seen", "strength"]
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


MOMENTS = [
    ("create_model_version", 1),
    ("set_registered_model_alias", 2),
    ("set_model_version_tag", 4),
]


@pytest.mark.parametrize(("moment", "time"), MOMENTS)
def test_a_crash_leaves_what_the_next_try_completes(world, monkeypatch, moment, time):
    trained = world.train()
    world = world.evaluate({f"sasrec@{trained['run_identity']}": lambda n: 1, "popularity@m": lambda n: 2 + n})
    request = world.register_request(trained)
    real, calls = getattr(MlflowClient, moment), []

    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        calls.append(args)
        if len(calls) == time:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as crash:
        crash.setattr(MlflowClient, moment, die)
        with pytest.raises(Killed):
            register.run(request)
    report = register.run(request)
    client = MlflowClient()
    assert report.status == "done"
    assert report.outputs["alias"] == "champion"
    assert report.outputs["decision"].startswith("promoted: NDCG@10 1.0000 is above")
    assert [str(v.version) for v in client.search_model_versions(f"name = '{NAME}'")] == ["1"]
    tags = client.get_model_version(NAME, "1").tags
    assert {"penchant.champion_since", "penchant.champion_before"} <= set(tags)
    experiment = client.get_experiment_by_name("penchant/tiny").experiment_id
    assert len(client.search_logged_models([experiment])) == 1
    assert register.run(request).status == "reused"


def heard(role, success):
    """What evaluate hands on of a model whose lists follow words."""
    return {f"{role}_words_success": f"{success}", f"{role}_words_control": "0.0"}


DEAF = heard("champion", 0.0) | heard("train_recommender", 0.0)


def challenge(world, seed, own, champion, version="1", coverage="0.5", words=DEAF, **changes):
    """Train and register a challenger whose ranks are `own`, beside those of the champion on the same day."""
    trained = world.train(generation=seed, seed=seed)
    name = f"{NAME}/{version}"
    world = world.evaluate({f"sasrec@{trained['run_identity']}": own, f"champion@{name}": champion})
    runs.log_metrics(trained["mlflow_run_id"], [("test.coverage_10", 0.5, 0)])
    beside = {"champion": name, "champion_coverage_10": coverage, "champion_unknown_targets": "2", **words}
    return register.run(world.register_request(trained, beside, **changes)), trained, world


def test_a_worse_model_stays_challenger_and_a_better_one_takes_over(registered):
    world, _, _ = registered
    client = MlflowClient()
    assert client.get_model_version(NAME, "1").tags["penchant.champion_before"] == "none"
    report, trained, _ = challenge(world, 1, own=lambda n: 2 + n % 6, champion=lambda n: 1 + n % 6)
    assert report.outputs["version"] == "2"
    assert report.outputs["alias"] == "challenger"
    decision = report.outputs["decision"]
    assert decision.startswith("kept: NDCG@10 0.4397 against 0.5508 of champion version 1 (which misses 2 targets")
    assert aliases.version_at(client, NAME, "champion") == "1"
    version = client.get_model_version(NAME, "2")
    assert version.tags["penchant.decision"] == "kept"
    assert f"kept: {version.tags['penchant.decision_reason']}" == decision
    assert "penchant.champion_since" not in version.tags
    assert len(version.description) <= 5000
    for row in (
        "| NDCG@10 beside the champion | 0.4397 | 0.5508 | 0.4957 | failed |",
        "| coverage of ten | 0.5 | 0.5 | 0.4 | passed |",
        "| steerability | - | - | - | not measured |",
    ):
        assert row in version.description
    folder = client.download_artifacts(trained["mlflow_run_id"], "promotion.json", str(world.home))
    checks = {check["name"]: check for check in json.loads(Path(folder).read_text())["checks"]}
    assert checks["latency"]["verdict"] == checks["size"]["verdict"] == "reported"
    assert checks["latency"]["challenger"] > 0

    report, _, _ = challenge(world, 2, own=lambda n: 1, champion=lambda n: 1 + n % 6)
    assert (report.outputs["version"], report.outputs["alias"]) == ("3", "champion")
    new, old = (client.get_model_version(NAME, number).tags for number in ("3", "1"))
    assert new["penchant.champion_before"] == "1"
    assert new["penchant.champion_since"] == old["penchant.champion_until"] >= old["penchant.champion_since"]


def test_failed_checks_are_all_named_and_leave_the_champion_untouched(registered):
    world, _, _ = registered
    limits = {"promotion.latency_ms": 0.0001, "promotion.size_mb": 0.0001, "promotion.slice_users": 8}
    uneven = {"own": lambda n: 1 if n % 3 else 10, "champion": lambda n: 2 + n % 3 * 5}
    report, _, _ = challenge(world, 1, **uneven, coverage="0.7", overrides=limits)
    assert report.outputs["alias"] == "challenger"
    kept, *reasons = report.outputs["decision"].split("; ")
    assert kept == "kept: coverage 0.5000 is below 0.5600 (champion 0.7000)"
    assert reasons[0].startswith("the weakest slice (target's popularity cold, 8 users) has NDCG@10 0.2891, below")
    assert reasons[1].endswith("ms is above the limit 0.0 ms")
    assert reasons[2].endswith("MB is above the limit 0.0 MB")
    assert aliases.version_at(MlflowClient(), NAME, "champion") == "1"


def test_users_whom_the_champion_knows_are_judged_apart(registered):
    world, _, _ = registered
    MlflowClient().set_model_version_tag(NAME, "1", "penchant.partition", "2026-01-30")
    rows = read_table(world.settings.table_uri("tiny", "sequences")).sort_by("user_id").slice(0, 12)
    rows = rows.drop_columns("partition_date").to_pylist()
    before = world.publish("sequences", rows, {"partition_date": dt.date(2026, 1, 30)}).handoffs["sequences"]
    world = replace(world, handoffs=world.handoffs | {"sequences": replace(before, rows=24)})
    ranks = {"own": lambda n: 5 if n < 12 else 1, "champion": lambda n: 2 if n < 12 else 10}
    report, _, _ = challenge(world, 1, **ranks)
    assert report.outputs["alias"] == "challenger"
    assert report.outputs["decision"] == (
        "kept: NDCG@10 0.3869 against 0.6309 of champion version 1 (which misses 2 targets that it does not know), "
        "among users from its day, 12 users: the difference -0.2441 may be as low as -0.2441, not above -0.0631"
    )


def test_a_champion_that_was_not_compared_with_is_never_replaced(registered):
    world, _, _ = registered
    trained = world.train(generation=1, seed=1)
    world = world.evaluate({f"sasrec@{trained['run_identity']}": lambda n: 1})
    for beside, said in (({}, "evaluate did not get one"), ({"champion": f"{NAME}/7"}, f"compared with {NAME}/7")):
        with pytest.raises(DataError, match=f"the champion is {NAME}/1, and .*{said}.*clearing the task"):
            register.run(world.register_request(trained, beside))
    beside = {"champion": f"{NAME}/1"}
    with pytest.raises(DataError, match=f"no rows of champion@{NAME}/1 for this partition"):
        register.run(world.register_request(trained, beside))
    client = MlflowClient()
    assert aliases.version_at(client, NAME, "champion") == "1"
    client.set_model_version_tag(NAME, "1", "penchant.partition", "2026-02-03")
    report = register.run(world.register_request(trained))
    assert report.outputs["decision"] == "kept: champion version 1 is of the newer day 2026-02-03"
    assert aliases.version_at(client, NAME, "champion") == "1"


def test_a_promoter_that_was_overtaken_moves_nothing(registered, monkeypatch):
    world, _, _ = registered
    challenge(world, 1, own=lambda n: 2 + n % 6, champion=lambda n: 1)
    real = register._describe

    def overtaken(client, *args):
        real(client, *args)
        client.set_registered_model_alias(NAME, "champion", "2")

    monkeypatch.setattr(register, "_describe", overtaken)
    with pytest.raises(aliases.AliasConflict, match="compared with champion 1, and 2 became champion meanwhile"):
        challenge(world, 2, own=lambda n: 1, champion=lambda n: 2 + n % 6)
    assert aliases.version_at(MlflowClient(), NAME, "champion") == "2"


def test_steerability_is_compared_where_both_were_asked_and_can_be_waited_for(registered):
    world, _, _ = registered
    required = {"promotion.require_steering": True}
    ranks = {"own": lambda n: 1, "champion": lambda n: 2 + n % 6}
    report, trained, world = challenge(world, 1, **ranks, overrides=required)
    assert report.outputs["decision"].startswith("waiting: the steerability of both was not measured")
    for version, lift in (("1", 0.4), ("2", 0.1)):
        partition = {"partition_date": DATE, "model": f"{NAME}/{version}"}
        world = world.publish("preference_evaluations", list(asked(lift)), partition)
    beside = {"champion": f"{NAME}/1", "champion_coverage_10": "0.5", **DEAF}
    report = register.run(world.register_request(trained, beside, overrides=required))
    assert report.counts["versions_made"] == 0
    assert "kept: lift by the preference +0.1000 against +0.4000, 30 samples" in report.outputs["decision"]
    assert register.run(world.register_request(trained, beside, overrides=required)).status == "reused"
    assert aliases.version_at(MlflowClient(), NAME, "champion") == "1"


def test_a_challenger_that_was_asked_before_is_judged_at_once_and_says_so_in_its_tags(registered):
    world, _, _ = registered
    trained = world.train(generation=1, seed=1)
    runs.set_tags(trained["mlflow_run_id"], {"penchant.steering.recommendation": "NDCG@10 0.300"})
    for model, lift in ((f"{NAME}/1", 0.4), (trained["run_identity"], 0.1)):
        partition = {"partition_date": DATE, "model": model}
        world = world.publish("preference_evaluations", list(asked(lift)), partition)
    report, _, _ = challenge(world, 1, own=lambda n: 1, champion=lambda n: 2 + n % 6)
    assert report.outputs["decision"].startswith("kept: lift by the preference +0.1000 against +0.4000, 30 samples")
    assert MlflowClient().get_model_version(NAME, "2").tags["penchant.steering.recommendation"] == "NDCG@10 0.300"


def asked(lift):
    for number in range(30):
        for condition, gain in (("none", 0.2), ("given", 0.2 + lift)):
            zero = dict.fromkeys(("recall_5", "recall_10", "ndcg_5"), 0.0)
            yield zero | {
                "axis": "recommendation",
                "split": "test",
                "sample_id": f"{number}",
                "condition": condition,
                "ndcg_10": gain,
            }


RANKS = {"worse": lambda n: 2 + n % 4, "better": lambda n: 1 + n % 2, "popular": lambda n: 3 + n}


def beside_baseline(world, own, baseline, evaluated=None, generation=0, **changes):
    """A run that trained HSTU and SASRec beside it; gives the request to register, and both trainings."""
    models = [world.train(recipe, generation, seed) for seed, recipe in enumerate(("hstu", "sasrec"))]
    names = [f"{recipe}@{m['run_identity']}" for recipe, m in zip(("hstu", "sasrec"), models, strict=True)]
    world = world.evaluate({names[0]: RANKS[own], names[1]: RANKS[baseline], "popularity@m": RANKS["popular"]})
    return world.register_request(models[0], evaluated, models[1], **changes), *models, world


def test_a_baseline_that_is_better_is_registered_instead_and_the_pages_say_why(world):
    request, lost, baseline, world = beside_baseline(world, "worse", "better", heard("train_baseline", 0.0))
    report = register.run(request)
    assert (report.outputs["version"], report.outputs["alias"]) == ("1", "champion")
    client = MlflowClient()
    version = client.get_model_version(NAME, "1")
    assert version.tags["penchant.recipe"] == "sasrec"
    assert version.tags["penchant.run_identity"] == baseline["run_identity"]
    assert version.tags["penchant.instead_of"] == lost["run_identity"]
    assert version.run_id == baseline["mlflow_run_id"]
    why = "NDCG@10 0.4871 of hstu is below sasrec's 0.8155 (difference -0.3284, -0.3920 to -0.2631, 24 users)"
    said = f"promoted: sasrec, trained beside hstu, is registered instead: {why}; NDCG@10 0.8155 is above popularity's"
    assert report.outputs["decision"].startswith(said)
    assert "words do not move its lists: success 0.00 (control 0.00)" in report.outputs["decision"]
    card = version.description
    assert card.startswith("# sasrec for tiny")
    assert "| registered instead of hstu | 0.8155 | - | 0.4871 | passed |" in card
    assert "| **sasrec, given history** | hstu, given history | popularity, given history |" in card
    run = client.get_run(lost["mlflow_run_id"])
    assert run.data.tags["penchant.decision"] == "not registered"
    assert run.data.tags["penchant.registered_instead"] == f"{NAME}/1"
    assert run.data.tags["mlflow.note.content"].startswith(f"**not registered**: {why}")
    assert "penchant.model_version" not in run.data.tags
    kept = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/promotion.json")
    assert (kept["decision"], kept["checks"][0]["verdict"]) == ("not registered", "failed")
    assert aliases.version_at(client, NAME, "challenger") == "1"

    again = register.run(request)
    assert (again.status, again.outputs) == ("reused", report.outputs)
    third = world.train("bert4rec")
    world = world.evaluate({f"bert4rec@{third['run_identity']}": RANKS["worse"]})
    also = world.register_request(third, None, baseline)
    assert register.run(also).status == "reused", "another recommender lost to the same baseline"
    assert client.get_run(third["mlflow_run_id"]).data.tags["penchant.registered_instead"] == f"{NAME}/1"
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1


def test_a_recommender_within_the_margin_is_chosen_and_so_is_one_that_is_compared_only(world):
    request, asked, _, world = beside_baseline(world, "worse", "better")
    rows = input_partition(world.settings, request, "measurements")

    def chosen(rows, margin):
        return choose(summarise(rows), request.upstream, PromotionSettings(baseline_margin=margin))

    choice = chosen(rows, 0.5)
    assert (choice.trained.identity, choice.lost) == (asked["run_identity"], None)
    assert choice.check.note.startswith("NDCG@10 0.4871 of hstu is not below sasrec's 0.8155 less 50% (")
    assert chosen(rows, 0.4).lost.identity == asked["run_identity"]
    place = rows.schema.get_field_index("model")
    shuffled = rows.set_column(place, "model", pc.binary_join_element_wise(rows["model"], "ties-shuffled-0", "@"))
    assert chosen(shuffled, 0.0).lost is None


def test_a_crash_on_the_way_to_a_baseline_makes_no_second_version(world, monkeypatch):
    request, lost, _, _ = beside_baseline(world, "worse", "better")

    def die(*_, **__):
        raise KeyboardInterrupt

    for moment in ("create_model_version", "set_registered_model_alias"):
        with monkeypatch.context() as crash:
            crash.setattr(MlflowClient, moment, die)
            with pytest.raises(KeyboardInterrupt):
                register.run(request)
    with monkeypatch.context() as crash:
        crash.setattr(aliases, "record_change", die)
        with pytest.raises(KeyboardInterrupt):
            register.run(request)
    report = register.run(request)
    assert (report.status, report.outputs["alias"]) == ("done", "champion")
    assert report.outputs["decision"].startswith("promoted: sasrec, trained beside hstu")
    client = MlflowClient()
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1
    assert client.get_run(lost["mlflow_run_id"]).data.tags["penchant.decision"] == "not registered"
    assert register.run(request).status == "reused"


def test_a_better_challenger_that_hears_no_words_waits_over_a_champion_that_does(registered):
    world, _, _ = registered
    client = MlflowClient()
    better = {"own": lambda n: 1, "champion": lambda n: 1 + n % 6}
    follows = heard("champion", 0.5)
    report, _, world = challenge(world, 1, **better, words=follows | heard("train_recommender", 0.0))
    assert (report.outputs["version"], report.outputs["alias"]) == ("2", "challenger")
    said = (
        "waiting: words move its lists less than those of champion version 1: success 0.00 (control 0.00) against 0.50"
    )
    assert report.outputs["decision"].startswith(said)
    assert "| follows words | 0 | 0.5 | 0.4 | failed |" in client.get_model_version(NAME, "2").description
    report, _, _ = challenge(world, 2, **better, words=follows | heard("train_recommender", 0.45))
    assert (report.outputs["version"], report.outputs["alias"]) == ("3", "champion")


def test_a_deaf_baseline_waits_over_a_champion_that_hears_and_leaves_it_in_place(registered):
    world, _, _ = registered
    evaluated = {"champion": f"{NAME}/1", "champion_coverage_10": "0.5"}
    evaluated |= heard("champion", 0.5) | heard("train_baseline", 0.0) | heard("train_recommender", 0.5)
    world = world.evaluate({f"champion@{NAME}/1": RANKS["worse"]})
    request, _, baseline, _ = beside_baseline(world, "worse", "better", evaluated, generation=1)
    runs.log_metrics(baseline["mlflow_run_id"], [("test.coverage_10", 0.5, 0)])
    report = register.run(request)
    assert (report.outputs["version"], report.outputs["alias"]) == ("2", "challenger")
    decision = report.outputs["decision"]
    assert decision.startswith("waiting: sasrec, trained beside hstu, is registered instead")
    assert "words move its lists less than those of champion version 1" in decision
    assert aliases.version_at(MlflowClient(), NAME, "champion") == "1"


def test_where_popularity_is_above_both_the_better_one_is_registered_and_none_promoted(world):
    request, _, _, world = beside_baseline(world, "worse", "better")
    world = world.evaluate({"popularity@m": lambda n: 1})
    report = register.run(replace(request, inputs=world.handoffs))
    assert report.outputs["alias"] == "challenger"
    decision = report.outputs["decision"]
    assert decision.startswith("kept: sasrec, trained beside hstu, is registered instead: NDCG@10 0.4871")
    assert decision.endswith("NDCG@10 0.8155 is not above popularity's 1.0000")


def test_below_popularity_there_is_no_champion(world):
    trained = world.train()
    world = world.evaluate({f"sasrec@{trained['run_identity']}": lambda n: 3, "popularity@m": lambda n: 1})
    report = register.run(world.register_request(trained))
    assert report.outputs["alias"] == "challenger"
    assert "not above popularity" in report.outputs["decision"]
    assert aliases.version_at(MlflowClient(), NAME, "champion") is None


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
    assert aliases.version_at(client, NAME, "champion") is None


def only_own(world, trained):
    """A request whose `measurements` has the model's own rows and no baseline's, in a world of its own."""
    bare = replace(world, handoffs={k: v for k, v in world.handoffs.items() if k != "measurements"})
    uri = bare.settings.table_uri("tiny", "measurements")
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
    assert aliases.version_at(MlflowClient(), NAME, "champion") is None
