import datetime as dt
from dataclasses import replace

import mlflow
import pandas as pd
import pyarrow as pa
import pytest

from infra.errors import SettingError
from ray_jobs import recommendations
from ray_jobs.data.tables import read_table, table_version
from ray_jobs.registry import users
from ray_jobs.registry.users import Audience, read_audience, user_parts, users_of
from schemas.errors import DataError

UPSTREAM = {"register.model_name": "penchant-tiny", "register.version": "1"}


def test_every_user_is_scored_as_the_model_would_answer(registered, ray_session, monkeypatch):
    world, _, _ = registered
    request = world.request(
        "recommendations",
        UPSTREAM,
        overrides={"recommendations.k": 5, "recommendations.users_per_batch": 7},
    )
    report = recommendations.run(request)
    assert report.counts["users"] == 24
    assert report.counts["with_preference"] == 8
    handoff = report.handoffs["recommendations"]
    assert handoff.rows == 24

    rows = read_table(handoff.uri, handoff.version).sort_by("user_id").to_pylist()
    assert {row["model_version"] for row in rows} == {"penchant-tiny/1"}
    assert {row["partition_date"] for row in rows} == {dt.date(2026, 1, 31)}
    audience = next(user_parts(world.settings, request, 100))
    assert [row["user_id"] for row in rows] == [reader.user_id for reader in audience]
    question = pd.DataFrame({"history": [r.history for r in audience], "known": [r.preference for r in audience]})
    answer = mlflow.pyfunc.load_model("models:/penchant-tiny/1").predict(question, params={"k": 5})
    assert [row["item_ids"] for row in rows] == answer["item_ids"].tolist()
    for row, scores in zip(rows, answer["scores"], strict=True):
        assert row["scores"] == pytest.approx(scores, abs=1e-5)
    for row, reader in zip(rows, audience, strict=True):
        assert len(row["item_ids"]) == 5
        assert not set(row["item_ids"]) & set(reader.history)
        assert row["preference"] == reader.preference
    assert rows[0]["preference"] == "I like jazz. I dislike loud amplifiers"
    assert rows[1]["preference"] is None

    assert [len(part) for part in user_parts(world.settings, request, 7)] == [7, 7, 7, 3]
    assert [reader for part in user_parts(world.settings, request, 7) for reader in part] == audience
    monkeypatch.setattr(users, "USERS_AT_ONCE", 7)
    told = next(reader for reader in audience if reader.preference)
    for wanted, places in ((5, (0, 5, 11, 17, 23)), (1, (0,)), (99, range(24))):
        some = read_audience(world.settings, request, wanted)
        assert some == Audience(24, 8, tuple(audience[place] for place in places), told)
    monkeypatch.setattr(recommendations, "USERS_AT_ONCE", 10)
    again = recommendations.run(request)
    assert again.handoffs["recommendations"] == handoff
    assert again.counts.items() >= {"users": 24, "with_preference": 8}.items()
    assert again.counts["items_recommended"] == len({item for row in rows for item in row["item_ids"]})
    assert table_version(handoff.uri) == handoff.version

    cheap = recommendations.run(replace(request, overrides={"recommendations.where": "price < 6"}))
    found = read_table(cheap.handoffs["recommendations"].uri).to_pylist()
    assert {item for row in found for item in row["item_ids"]} == {f"i{number:02}" for number in range(6)}


def test_a_summary_tells_of_a_user_without_preferences():
    moment = dt.datetime(2026, 1, 30, tzinfo=dt.UTC)
    users = ["u1", "u2", "u3"]
    sequences = pa.table({"user_id": users, "item_ids": [["a"]] * 3, "occurred_at": [[moment]] * 3, "length": [1] * 3})
    preferences = pa.table({"user_id": ["u1"], "position": [0], "preferences": [["Prefers jazz"]], "status": ["ok"]})
    told = [("u1", 0, "Likes rock", "ok"), ("u2", 1, "Likes folk", "ok"), ("u2", 0, "Likes noise", "ok")]
    told += [("u3", 0, "", "none")]
    summaries = pa.Table.from_pylist(
        [{"user_id": u, "as_of": moment + dt.timedelta(days=d), "summary": s, "status": ok} for u, d, s, ok in told]
    )
    found = users_of(sequences, preferences, dt.date(2026, 1, 31), summaries)
    assert [reader.preference for reader in found] == ["Prefers jazz", "Likes folk", None]


def test_what_is_missing_or_wrong_is_named(registered):
    world, _, _ = registered
    with pytest.raises(DataError, match=r"register\.model_name and register\.version"):
        recommendations.run(world.request("recommendations", {}))
    gone = {**UPSTREAM, "register.version": "7"}
    with pytest.raises(DataError, match="version 7 of model penchant-tiny is not in the registry"):
        recommendations.run(world.request("recommendations", gone))
    with pytest.raises(SettingError, match=r"recommendations\.k is 0"):
        recommendations.run(world.request("recommendations", UPSTREAM, overrides={"recommendations.k": 0}))
