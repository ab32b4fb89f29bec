"""What the real chain recovers of other planted worlds than the everyday test's, when its model makes no mistake."""

import pytest

from pipelines import denoised_sequences, preferences
from pipelines.landing.planted_world import WorldSettings
from tests.pipelines.language.planted_chain import run_chain


def test_a_model_that_tells_both_sides_recovers_dislikes_from_glad_reviews(spark, jars_dir, tmp_path):
    found = run_chain(
        spark,
        jars_dir,
        tmp_path,
        WorldSettings(users=40, items=48),
        (preferences,),
        review_lines__topics=("price",),
        review_lines__prompt="review_opinions",
        preferences__most=10,
    )
    for side in ("like", "dislike"):
        told = found.report["preferences"]["methods"]["stage"][side]
        assert told["precision"] > 0.95
        assert told["recall"] > 0.95


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_corrections_at_other_shares_of_noise(spark, jars_dir, tmp_path, noise):
    world = WorldSettings(users=40, items=48, noise=noise)
    stages = (denoised_sequences,)
    found = run_chain(spark, jars_dir, tmp_path, world, stages, scoring="echo", denoised_sequences__max_edits=0)
    assert set(found.report) == {"noise", "corrections"}
    assert found.calls == {"/v1/completions": found.stages["denoised_sequences"].counts["llm_calls"]}
    edits = found.report["corrections"]
    assert edits["scored"] == found.stages["denoised_sequences"].counts["positions_scored"]
    if noise:
        assert found.report["noise"]["stage"]["auc"] > 0.95
        assert edits["precision"] > 0.95
        assert edits["recall"] > 0.95
    else:
        assert found.report["noise"]["stage"]["auc"] is None
        assert edits["edits_per_100"] < 0.5
