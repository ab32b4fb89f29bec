"""The stage preference_benchmark on hand-made tables."""

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.errors import SettingError
from infra.settings import Settings
from pipelines import preference_benchmark as stage
from pipelines.delta_tables import read_table
from pipelines.landing.planted_world import WorldSettings, grow_world, write_world
from pipelines.steering.histories import History
from schemas.errors import DataError
from schemas.stage_request import StageRequest
from schemas.tables import TABLES
from schemas.text_vectors import text_hash
from tests.pipelines.given_rows import frame_of

DAY = dt.date(2026, 1, 31)
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
USERS, LENGTH, ITEMS = 12, 6, 24
ENCODER = "circle"
WORLD = grow_world(WorldSettings(users=3, items=ITEMS, shortest=3, longest=4))


def angle(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def item(number: int) -> str:
    return WORLD.items[number % ITEMS].item_id


def line(number: int) -> str:
    return f"{'Avoids' if number % 3 == 0 else 'Prefers'} thing {number}"


def rows(users_with_preferences: int) -> dict[str, list[tuple]]:
    """User u has items 2u, 2u + 1, ... and says at each position a line about the item, but for the silent last one."""
    found: dict[str, list[tuple]] = {name: [] for name in ("sequences", "preferences", "review_sentiments")}
    for user, first in ((f"u{u:02}", 2 * u) for u in range(USERS)):
        items = [item(first + p) for p in range(LENGTH)]
        times = [EPOCH + dt.timedelta(days=p) for p in range(LENGTH)]
        splits = (LENGTH, LENGTH - 2, LENGTH - 1, LENGTH, LENGTH)
        found["sequences"].append((user, items, times, [4.0] * LENGTH, [False] * LENGTH, "hash", *splits, DAY))
        for p in range(LENGTH):
            asked = first < 2 * users_with_preferences
            told = [line(first + q) for q in range(p, max(-1, p - 3), -1)] if asked else []
            kinds = ["dislike" if text.startswith("Avoids") else "like" for text in told]
            evidence = [[q] for q in range(p, max(-1, p - 3), -1)] if asked else []
            status = "ok" if asked else "not_asked"
            found["preferences"].append((user, p, times[p], told, kinds, evidence, status, DAY))
            tone = ("negative", 0.1) if (first + p) % 3 == 0 else ("positive", 0.9)
            found["review_sentiments"].append((user, p, items[p], 4.0, *tone, "scripted", DAY))
    numbers = range(2 * USERS + LENGTH)
    found["items"] = [
        (item(n), f"Title {n}", None, ["Shop", f"Shelf {n % 3}"], None, None, "text", DAY) for n in range(ITEMS)
    ]
    found["item_vectors"] = [(item(n), ENCODER, "hash", angle(15 * n)) for n in range(ITEMS)]
    found["text_vectors"] = [(text_hash(line(n)), ENCODER, angle(15 * n + 2)) for n in numbers]
    found["text_vectors"] += [(text_hash(line(n)), "another", angle(0)) for n in numbers]
    return found


def write(spark: SparkSession, settings: Settings, name: str, content: list[tuple]) -> None:
    frame = frame_of(spark, name, content)
    columns = TABLES[name].partition_by
    frame.write.format("delta").mode("overwrite").partitionBy(*columns).save(settings.table_uri("d", name))


def request(**overrides: object) -> StageRequest:
    chosen = {"encoder": ENCODER, "probe_min_items": 4, **overrides}
    dotted = {f"preference_benchmark.{name}": value for name, value in chosen.items()}
    return StageRequest(stage=stage.STAGE, dataset="d", partition=str(DAY), overrides=dotted)


def test_the_stage_publishes_twice_the_same_and_new_preferences_extend_it(
    spark: SparkSession, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PENCHANT_HOME", settings.home)
    write_world(WORLD, tmp_path)
    asked_for = request(truth=str(tmp_path / "truth"))

    def published(name: str) -> dict[tuple, dict]:
        table = read_table(spark, settings.table_uri("d", name))
        return {tuple(row[c] for c in TABLES[name].key): row.asDict() for row in table.collect()}

    tables = rows(users_with_preferences=8)
    for name, content in tables.items():
        write(spark, settings, name, content)
    first = stage.run(asked_for)
    samples = published("preference_benchmark")
    assert set(first.handoffs) == {"preference_benchmark", "steering_probes"}
    assert first.handoffs["preference_benchmark"].rows == len(samples)
    counts = first.counts
    assert (counts["samples.recommendation.valid"], counts["samples.recommendation.test"]) == (8, 8)
    assert (counts["samples.history_consolidation.test"], counts["samples.fine_steering.test"]) == (8, 2 * USERS)
    assert counts["skipped.recommendation.test.no_known_preference"] == USERS - 8
    assert counts["samples.sentiment_following.train"] > 0
    assert 0.8 < counts["label_entropy_share.coarse_steering.test"] <= 1
    assert counts["effective_labels.coarse_steering.test"] <= USERS
    assert counts["seen_share.recommendation.test"] < 1

    asked = samples["recommendation", "test", "u00@5"]
    # known before position 5 are lines 4, 3 (a dislike) and 2; the target is item 5
    assert (asked["target_item_id"], asked["preference"]) == (item(5), "Prefers thing 4")
    assert asked["similarity"] == pytest.approx(math.cos(math.radians(13)), abs=1e-5)
    assert (asked["latest"], asked["seen_in_training"]) == ("Prefers thing 4", True)
    joined = samples["history_consolidation", "test", "u00@5"]["preference"]
    assert joined == "Prefers thing 4. Avoids thing 3. Prefers thing 2"
    rejected = samples["sentiment_following", "train", "u00@3"]
    assert (rejected["opposite"], rejected["preference"]) == ("Avoids thing 3", "Prefers thing 3")
    assert (rejected["history_user_id"], rejected["history_end"], rejected["partner_item_id"]) == ("u00", 3, None)
    # targets of the test split are the odd items; items 3 and 7 are equally near to 5, and u01 with 7 comes first
    steered = samples["fine_steering", "test", f"{item(5)}>{item(7)}:{item(5)}"]
    assert (steered["history_user_id"], steered["history_end"], steered["partner_item_id"]) == ("u01", 5, item(7))
    probes = published("steering_probes")
    compact = sorted(one.item_id for one in WORLD.items if "compact" in one.attributes)
    assert probes["compact",]["item_ids"] == compact
    assert {name: len(r["item_ids"]) for (name,), r in probes.items() if r["kind"] == "category"} == {
        f"Shelf {n}": 8 for n in range(3)
    }
    assert (counts["probes.category"], counts["probes.attribute"]) == (3, len(probes) - 3)

    write(spark, settings, "preferences", tables["preferences"][::-1])
    assert stage.run(asked_for) == first

    write(spark, settings, "preferences", rows(users_with_preferences=USERS)["preferences"])
    more = stage.run(asked_for)
    assert more.handoffs["preference_benchmark"].version > first.handoffs["preference_benchmark"].version
    assert more.handoffs["steering_probes"] == first.handoffs["steering_probes"]
    assert set(published("preference_benchmark")) > set(samples)
    assert more.counts["samples.recommendation.test"] == USERS


def test_vectors_are_found_by_name_and_missing_ones_are_named_with_their_stage(spark: SparkSession) -> None:
    tables = rows(users_with_preferences=8)

    def frame(name: str, content: list[tuple]) -> DataFrame:
        return frame_of(spark, name, content)

    stored = stage.Stored(
        spark=spark,
        encoder=ENCODER,
        texts=frame("text_vectors", tables["text_vectors"]),
        items=frame("item_vectors", tables["item_vectors"][:10]),
    )
    found = stored.of_texts([line(5), line(2)]).of([line(2), line(5)])
    np.testing.assert_allclose(found, [angle(32), angle(77)], atol=1e-6)
    assert stored.of_texts([]).of([]).shape[0] == 0
    with pytest.raises(
        DataError, match=r"text_vectors has no vector of encoder 'circle' for 1 of 2 preferences, e.g. 'x'; .*'text_ve"
    ):
        stored.of_texts([line(5), "x"])
    with pytest.raises(DataError, match=r"item_vectors .* for 2 of 3 items, e.g. .*; run the stage 'item_vectors'"):
        stored.of_items([item(3), item(11), item(10)])


def test_sentiments_of_other_sequences_are_refused() -> None:
    histories = [History(user_id="u", items=("a", "b"), valid=None, test=None, preferences={})]
    assert stage.negative_positions([{"user_id": "u", "position": 1, "item_id": "b"}], histories) == {"u": [1]}
    for user, position, item_id in (("u", 0, "b"), ("u", 2, "b"), ("v", 0, "a")):
        with pytest.raises(DataError, match=f"'{item_id}' at position {position} of user '{user}'.*on these sequences"):
            stage.negative_positions([{"user_id": user, "position": position, "item_id": item_id}], histories)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"coarse_label_cap": 0}, "coarse_label_cap is 0, but must be at least 1"),
        ({"max_pool": 2}, "max_pool is 2, but must be at least 3"),
        ({"axes": 5}, "preference_benchmark.axes is no setting"),
    ],
)
def test_bad_settings_are_named(override: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        stage.stage_settings(stage.PreferenceBenchmarkSettings, Settings(), request(**override).overrides)
