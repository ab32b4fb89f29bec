from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from infra.errors import SettingError
from ray_jobs import continuation
from ray_jobs.continuation import ContinuationSettings, decide, outgrown
from ray_jobs.registry import runs
from schemas.stage_request import StageRequest

NAME = "penchant-tiny"
FITS = {
    "appended_share": 0.1,
    "utilisation_0": 0.9,
    "collision_rate": 0.1,
    "appended_collision_rate": 0.2,
    "reconstruction_mse_fitted": 0.10,
    "reconstruction_mse_appended": 0.12,
}


@pytest.mark.parametrize(
    ("changes", "settings", "why"),
    [
        ({}, {}, ""),
        ({"appended_share": 0.0}, {"max_error_ratio": 0.1}, ""),
        ({"appended_share": 0.31}, {}, "31.0% of the items were appended, more than 30.0%"),
        ({"utilisation_0": 0.2}, {}, "20.0% of the first level's codes are used, under 30.0%"),
        ({"reconstruction_mse_appended": 0.16}, {}, "coded 1.60 times as badly"),
        ({"appended_collision_rate": 0.35}, {}, "25.0% more of the appended items collide"),
        ({"full": 1.0}, {}, "no room"),
    ],
)
def test_a_codebook_is_outgrown_for_a_reason_with_its_number(changes, settings, why):
    found = outgrown({**FITS, **changes}, ContinuationSettings(**settings))
    assert (found == "") == (why == "")
    assert why in found


def request(partition="2026-01-05", recipe="mendertok", **changes):
    return StageRequest(stage="continuation", dataset="tiny", partition=partition, recipe=recipe, **changes)


def version(recipe="mendertok", number="4", **tags):
    return SimpleNamespace(name=NAME, version=number, tags={"penchant.recipe": recipe, **tags})


def test_new_codes_mean_a_cold_start_and_kept_codes_a_warm_one():
    own = ContinuationSettings()
    fitted = decide(request(), version(), "", "31.0% of the items were appended", 3, own)
    assert (fitted.codebook, fitted.append_to, fitted.warm_start) == ("fit", "", "")
    assert fitted.reason == "31.0% of the items were appended; cold start, because codes change"
    kept = decide(request(), version(), "rq-1", "", 3, own)
    assert (kept.codebook, kept.append_to, kept.warm_start) == ("append", "rq-1", f"{NAME}/4")
    assert kept.reason == "codebook rq-1 still fits; continues from version 4"


def test_another_recipe_starts_cold_and_so_does_every_so_many_days():
    other = decide(request(), version("tiger"), "rq-1", "", 3, ContinuationSettings())
    assert (other.codebook, other.warm_start) == ("append", "")
    assert "recipe tiger" in other.reason
    for days, warm in ((6, f"{NAME}/4"), (7, "")):
        found = decide(request(), version(), "rq-1", "", days, ContinuationSettings(cold_start_days=7))
        assert (found.append_to, found.warm_start) == ("rq-1", warm)
    plain = decide(
        request(recipe="sasrec"), version("sasrec"), "", "sasrec uses no semantic ids", 1, ContinuationSettings()
    )
    assert (plain.codebook, plain.append_to, plain.warm_start) == ("fit", "", f"{NAME}/4")


@pytest.fixture
def registry(settings):
    client = runs.connect(settings)
    client.create_registered_model(NAME)

    def add(partition, decision="promoted", **tags):
        made = {"penchant.partition": partition, "penchant.decision": decision, "penchant.recipe": "sasrec", **tags}
        return client.create_model_version(NAME, "file:/nowhere", tags=made)

    return SimpleNamespace(client=client, add=add)


def test_a_day_goes_on_from_the_newest_promoted_version_of_an_earlier_day(registry):
    assert continuation.version_before(registry.client, request()) is None
    for partition, decision in (
        ("2026-01-02", "promoted"),
        ("2026-01-04", "promoted"),
        ("2026-01-04", "kept"),
        ("2026-01-03", "promoted"),
        ("2026-01-05", "promoted"),
    ):
        registry.add(partition, decision)
    assert str(continuation.version_before(registry.client, request()).version) == "2"
    assert str(continuation.version_before(registry.client, request("2026-01-06")).version) == "5"
    assert continuation.version_before(registry.client, request("2026-01-02")) is None
    report = continuation.run(request(recipe="sasrec"))
    assert report.outputs["warm_start"] == f"{NAME}/2"
    registry.add("2026-01-05")
    assert continuation.run(request(recipe="sasrec")).outputs == report.outputs, "the day's own versions change nothing"
    registry.client.set_model_version_tag(NAME, "2", "penchant.rolled_back", "it was bad")
    assert continuation.run(request(recipe="sasrec")).outputs["warm_start"] == f"{NAME}/4", "nobody goes on from that"
    off = continuation.run(request(recipe="sasrec", overrides={"continuation.enabled": False}))
    assert (off.outputs["warm_start"], off.outputs["reason"]) == ("", "continuation.enabled is false")


def test_days_count_from_the_cold_start_that_a_chain_began_with(registry):
    registry.add("2026-01-01")
    registry.add("2026-01-02", **{"penchant.warm_start": f"{NAME}/1"})
    last = registry.add("2026-01-04", **{"penchant.warm_start": f"{NAME}/2"})
    client = MlflowClient()
    assert continuation.days_since_cold(client, client.get_model_version(NAME, last.version), request()) == 4


def test_wrong_settings_are_named():
    with pytest.raises(SettingError, match=r"continuation\.max_appended_share is 2"):
        ContinuationSettings(max_appended_share=2)
    with pytest.raises(SettingError, match="cold_start_days is -1, but must be at least 0"):
        ContinuationSettings(cold_start_days=-1)
