"""What a task asks of its stage, from the run's parameters and what the tasks before it published."""

import datetime as dt
from types import SimpleNamespace

import pytest

from infra.state import write_json
from schemas.handoff import Handoff, StageReport


def report(stage, *tables, **outputs):
    handoffs = {t: Handoff(table=t, uri=f"/w/{t}", version=1, rows=1, schema_hash="h") for t in tables}
    return StageReport(stage=stage, status="done", handoffs=handoffs, outputs=outputs).to_dict()


@pytest.fixture
def request_of(monkeypatch, tmp_path, airflow_home):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))

    def make(name, published, **params):
        from dags import chain
        from dags.operators.stages import request_for
        from infra.settings import load_settings

        stage = chain._reading_from(getattr(chain, name), "inputs")
        context = {
            "params": {"dataset": "d", "partition": "2026-01-31", "recommender": "mendertok"} | params,
            "dag": SimpleNamespace(dag_id="train_recipe"),
            "ti": SimpleNamespace(xcom_pull=lambda task_ids: published.get(task_ids)),
            "dag_run": SimpleNamespace(data_interval_start=dt.datetime(2026, 2, 1), run_after=None),
        }
        return request_for(stage, context, load_settings())

    return make


PREPARED = {
    "sequences": report("sequences", "sequences", "interactions"),
    "preferences": report("preferences", "preferences", mlflow_run="r1"),
    "preference_benchmark": report("preference_benchmark", "preference_benchmark", "steering_probes", note="n"),
}


def test_a_recipe_reads_the_benchmark_only_where_its_setting_asks_for_it(request_of):
    plain = request_of("TRAIN_RECOMMENDER", {"inputs": PREPARED})
    assert set(plain.inputs) == {"sequences", "preferences"}
    other = request_of("TRAIN_RECOMMENDER", {"inputs": PREPARED}, overrides={"menderemb.fuse": ["positive"]})
    assert set(other.inputs) == set(plain.inputs)
    fused = request_of("TRAIN_RECOMMENDER", {"inputs": PREPARED}, overrides={"mendertok.fuse": ["positive"]})
    assert set(fused.inputs) == {"sequences", "preferences", "preference_benchmark"}


def test_a_new_benchmark_is_no_new_training_for_recipes_that_do_not_read_it(request_of):
    without = {name: found for name, found in PREPARED.items() if name != "preference_benchmark"}
    identities = {request_of("TRAIN_RECOMMENDER", {"inputs": given}).identity().key() for given in (PREPARED, without)}
    assert len(identities) == 1


def test_the_versions_that_are_asked_are_part_of_the_work(request_of):
    def asked(models):
        return request_of("STEERABILITY", {"inputs": PREPARED, "versions": report("versions", models=models)})

    assert asked("penchant-d/3").upstream["versions.models"] == "penchant-d/3"
    assert asked("penchant-d/3").identity() != asked("penchant-d/4").identity()
    assert set(asked("penchant-d/3").inputs) == {"sequences", "preference_benchmark", "steering_probes"}


def test_the_branch_that_ran_gives_the_codebook(request_of):
    published = {"append_items": report("semantic_ids", "semantic_ids", codebook="rq-1")}
    assert request_of("TRAIN_RECOMMENDER", published).upstream["semantic_ids.codebook"] == "rq-1"
    assert "semantic_ids" in request_of("EVALUATE", published).inputs
    published["semantic_ids"] = report("semantic_ids", "semantic_ids", codebook="rq-2")
    assert request_of("TRAIN_RECOMMENDER", published).upstream["semantic_ids.codebook"] == "rq-2"


def test_what_a_day_goes_on_from_is_handed_to_training_but_not_to_the_tokenizer(request_of):
    found = {"continuation": report("continuation", append_to="rq-1", warm_start="penchant-d/3")}
    assert request_of("TRAIN_RECOMMENDER", found).upstream["continuation.warm_start"] == "penchant-d/3"
    assert request_of("APPEND_ITEMS", found, tokenizer="rqvae").upstream["continuation.append_to"] == "rq-1"
    assert request_of("SEMANTIC_IDS", found, tokenizer="rqvae").upstream == {}
    assert request_of("CONTINUATION", {}, tokenizer="fsq").upstream == {"tokenizer": "fsq"}


def test_the_champion_is_part_of_the_work_and_none_leaves_it_as_it_was(request_of):
    published = {"inputs": PREPARED, "train_recommender": report("train", bundle_uri="/b")}
    alone = request_of("EVALUATE", published).identity()
    assert request_of("EVALUATE", published | {"champion": report("champion")}).identity() == alone
    beside = request_of("EVALUATE", published | {"champion": report("champion", model="penchant-d/3")})
    assert beside.upstream["champion.model"] == "penchant-d/3"
    assert beside.identity() != alone


def test_a_rollback_of_another_reign_is_other_work(request_of):
    def asked(since):
        looked_up = report("target", champion="4", since=since, to="3", reason="")
        return request_of("ROLLBACK", {"target": looked_up}).identity()

    assert asked("2026-02-01T03:00:00+00:00") == asked("2026-02-01T03:00:00+00:00")
    assert asked("2026-02-01T03:00:00+00:00") != asked("2026-02-02T03:00:00+00:00")


def test_a_home_that_was_moved_or_copied_reads_its_own_tables_and_bundles(request_of, tmp_path):
    write_json(tmp_path / "home.json", {"places": ["/old/home"]})
    there = Handoff(table="sequences", uri="/old/home/warehouse/d/sequences", version=1, rows=1, schema_hash="h")
    known = {"sequences": StageReport(stage="sequences", status="done", handoffs={"sequences": there}).to_dict()}
    known["preferences"] = report("preferences", "preferences", bundle_uri="/old/home/bundles/x", page="/old/homestead")
    request = request_of("TRAIN_RECOMMENDER", {"inputs": known})
    assert request.inputs["sequences"].uri == f"{tmp_path}/warehouse/d/sequences"
    assert request.inputs["preferences"].uri == "/w/preferences"
    assert request.upstream["preferences.bundle_uri"] == f"{tmp_path}/bundles/x"
    assert request.upstream["preferences.page"] == "/old/homestead"


def test_a_parameter_that_a_dag_does_not_have_is_refused(airflow_home):
    from airflow.sdk.exceptions import AirflowFailException

    from dags.operators.stages import partition_of

    def context(conf):
        return {
            "params": {"dataset": "d", "partition": "2026-01-31", **conf},
            "dag": SimpleNamespace(params={"dataset": "d", "partition": None}),
            "dag_run": SimpleNamespace(conf=conf),
        }

    assert partition_of(context({"dataset": "d"})) == "2026-01-31"
    with pytest.raises(AirflowFailException, match=r"^reciepe: no parameter of this DAG, which has dataset, partition"):
        partition_of(context({"reciepe": "tiger"}))


def test_a_form_takes_no_name_that_the_stages_refuse(airflow_home):
    from airflow.sdk.exceptions import ParamValidationError

    from dags.chain import DATASET, PARTITION

    assert DATASET.resolve("shop-2") == "shop-2"
    assert PARTITION.resolve("2026-01-31") == "2026-01-31"
    assert PARTITION.resolve(None) is None
    for wrong in ("shop\n", "x" * 300, "../../a", "Shop"):
        with pytest.raises(ParamValidationError):
            DATASET.resolve(wrong)
    for wrong in ("20260131", "2026-W05-6", "2026-02-30"):
        with pytest.raises(ParamValidationError):
            PARTITION.resolve(wrong)
