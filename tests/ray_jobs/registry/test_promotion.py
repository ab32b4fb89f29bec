import pytest
from mlflow import MlflowClient

from ray_jobs.registry import promotion, runs
from ray_jobs.registry.promotion import AliasConflict, Standing, decide

DAY = "2026-01-31"


def standing(version, ndcg, partition=DAY):
    return Standing(version=version, partition=partition, ndcg_10=ndcg)


@pytest.mark.parametrize(
    ("own", "champion", "promote", "words"),
    [
        (0.04, None, True, "no champion"),
        (0.02, None, False, "not above popularity's 0.0200"),
        (0.04, standing("1", 0.04), True, "not below 0.0400 of champion version 1"),
        (0.04, standing("1", 0.041), False, "is below 0.0410 of champion version 1"),
        (0.04, standing("1", 0.9, "2026-01-30"), True, "no result for 2026-01-31"),
        (0.04, standing("1", None), True, "no result for 2026-01-31"),
        (0.9, standing("1", 0.04, "2026-02-01"), False, "newer day 2026-02-01"),
        (0.04, standing("2", 0.04), True, "no champion"),
    ],
)
def test_the_rule(own, champion, promote, words):
    decision = decide(standing("2", own), 0.02, champion)
    assert decision.promote is promote
    assert words in decision.reason
    assert decision.word == ("promoted" if promote else "kept")


def test_an_alias_is_read_back(settings, tmp_path):
    client = runs.connect(settings)
    client.create_registered_model("m")
    for _ in range(2):
        client.create_model_version("m", str(tmp_path))
    assert promotion.version_at(client, "m", "champion") is None
    assert promotion.version_at(client, "nobody", "champion") is None
    promotion.point_alias(client, "m", "champion", "1")
    assert promotion.version_at(client, "m", "champion") == "1"

    class Rival(MlflowClient):
        def set_registered_model_alias(self, name, alias, version):
            super().set_registered_model_alias(name, alias, version)
            super().set_registered_model_alias(name, alias, "1")

    rival = Rival(settings.mlflow.tracking_uri, settings.mlflow.tracking_uri)
    with pytest.raises(AliasConflict, match="set to version 2 and now points at 1"):
        promotion.point_alias(rival, "m", "champion", "2")
