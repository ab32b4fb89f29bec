"""Look-ups in the registry before a stage runs, against a double of it."""

from types import SimpleNamespace

import pytest

NAME = "penchant-d"


def version(number, **tags):
    return SimpleNamespace(version=number, tags={f"penchant.{key}": value for key, value in tags.items()})


class Registry:
    def __init__(self, champion, *versions):
        self.at, self.versions = champion, versions

    def get_model_version_by_alias(self, name, alias):
        from mlflow.exceptions import RestException

        assert (name, alias) == (NAME, "champion")
        for found in self.versions:
            if found.version == self.at:
                return found
        raise RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no alias"})

    def search_model_versions(self, query, order_by, max_results):
        tag, wanted = query.split("`")[1], query.rpartition("= ")[2].strip("'")
        return [found for found in self.versions if found.tags.get(tag) == wanted][:max_results]


@pytest.fixture
def look_up(monkeypatch, airflow_home):
    def run(task_id, registry, **params):
        from dags import prepared

        trained = {"outputs": {"run_identity": "mine"}}
        context = {
            "params": {"dataset": "d", **params},
            "ti": SimpleNamespace(xcom_pull=lambda task_ids: trained if task_ids == "train_recommender" else None),
        }
        monkeypatch.setattr(prepared, "get_current_context", lambda: context)
        monkeypatch.setattr(prepared, "registry", lambda: registry)
        return getattr(prepared, task_id).function()["outputs"]

    return run


@pytest.mark.parametrize(
    ("champion", "own", "found"),
    [
        (None, {}, {}),
        (2, {}, {"model": f"{NAME}/2"}),
        (2, {"decision": "waiting", "champion_before": "1"}, {"model": f"{NAME}/2"}),
        (3, {"decision": "promoted", "champion_before": "2"}, {"model": f"{NAME}/2"}),
        (3, {"decision": "promoted", "champion_before": "none"}, {}),
        (4, {"decision": "promoted", "champion_before": "2"}, {"model": f"{NAME}/2"}),
        (4, {"decision": "kept", "champion_before": "2"}, {"model": f"{NAME}/2"}),
        (2, {"champion_before": "1"}, {"model": f"{NAME}/2"}),
        (3, {"champion_before": "2"}, {"model": f"{NAME}/2"}),
        (3, {}, {}),
    ],
)
def test_a_rerun_stands_beside_the_champion_that_its_model_was_judged_with(look_up, champion, own, found):
    others = [version(1), version(2), version(4, run_identity="another")]
    mine = [version(3, run_identity="mine", **own)] if own or champion == 3 else []
    assert look_up("champion", Registry(champion, *others, *mine)) == found


def test_a_rerun_whose_baseline_was_registered_stands_beside_what_that_was_judged_with(look_up):
    tags = {"run_identity": "baseline", "instead_of": "mine", "decision": "promoted"}
    first = version(1, champion_before="none", **tags)
    assert look_up("champion", Registry(1, first)) == {}
    later = version(3, champion_before="2", **tags)
    assert look_up("champion", Registry(3, version(2), later)) == {"model": f"{NAME}/2"}
    another = version(3, champion_before="2", **{**tags, "instead_of": "another"})
    assert look_up("champion", Registry(3, version(2), another)) == {"model": f"{NAME}/3"}


def test_each_rollback_is_work_of_its_own(look_up):
    registry = Registry(2, version(2, champion_since="2026-02-01T03:00:00+00:00"))
    asked = look_up("target", registry, version=1, reason="slow")
    since = "2026-02-01T03:00:00+00:00"
    assert asked == {"champion": "2", "since": since, "to": "1", "reason": "slow"}
    nobody = look_up("target", Registry(None), version=None, reason="")
    assert nobody == {"champion": "", "since": "", "to": "", "reason": ""}


def test_what_needs_ratings_is_refused_where_there_are_none(monkeypatch, airflow_home, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    from dags import prepared
    from infra.settings import Settings
    from schemas.dataset import Dataset

    def refuse(params, **counts):
        prepared.refuse_missing({"params": params, "dag": SimpleNamespace(tasks=())}, counts)

    settings = Settings(home=str(tmp_path), stages={})
    monkeypatch.setattr(prepared, "load_settings", lambda: settings)
    Dataset(name="d", format="columns", reviews="s3a://b/r.parquet", scale="none").save(settings.datasets_dir())
    params = {"dataset": "d", "recommender": "sasrec", prepared.MEASURED: False}
    refuse(params)
    measured = params | {prepared.MEASURED: True}
    with pytest.raises(AirflowFailException, match=r"measure steerability needs ratings.*\.classifier"):
        refuse(measured)
    refuse(measured | {"overrides": {"review_sentiments.classifier": "hub:x"}})
    refuse(measured | {"dataset": "brought"})
    with pytest.raises(AirflowFailException, match=r"menderemb needs titles, but data set d has none: .*--items"):
        refuse(params | {"recommender": "menderemb"})
    refuse(params | {"recommender": "menderemb"}, titled_items=3)
    coded = params | {"tokenizer": "itemindex", "recommender": "tiger"}
    refuse(coded)
    by_category = {"itemindex.scheme": "hybrid", "itemindex.path": "semantic"}
    told = r"itemindex needs categories, but data set d has none: .*rqvae, or set itemindex\.scheme to collaborative"
    for chosen in (by_category, {"itemindex.scheme": "semantic"}):
        with pytest.raises(AirflowFailException, match=told):
            refuse(coded | {"overrides": chosen})
        refuse(coded | {"overrides": chosen, "recommender": "sasrec"})
    Dataset(name="d", format="columns", reviews="s3a://b/r.parquet").save(settings.datasets_dir())
    refuse(measured)
