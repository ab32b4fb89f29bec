"""Reviews at positions, and the stage text_vectors on a real Ray."""

import dataclasses
import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from planted_reviews import plant_reviews
from planted_warehouse import IDENTITY, PARTITION

from infra.errors import SettingError
from ray_jobs import text_vectors
from ray_jobs.data.reviews import reviewed_positions
from ray_jobs.data.tables import publish, read_table
from ray_jobs.encoders.text import PACKAGED, load_text_encoder
from schemas.errors import DataError
from schemas.preferences import PREFERENCES
from schemas.review_texts import review_text
from schemas.reviews import REVIEWS
from schemas.text_vectors import text_hash


def preference_lines(warehouse):
    rows = read_table(warehouse.uri("preferences"))
    return {line for lines in rows["preferences"].to_pylist() for line in lines}


def told(*texts):
    return pa.chunked_array([texts])


def test_headline_and_body_are_one_text_without_the_stars():
    assert review_text("Meh!", "It  broke.", 9) == "Meh! It broke."
    assert review_text("Broken", "After a day", 9) == "Broken. After a day"
    assert review_text("Five stars!", "Loud.", 9) == "Loud."
    assert review_text("1 star", None, 9) == ""
    assert review_text("Five stars for the sound", "", 9) == "Five stars for the sound"
    assert review_text(None, "one two three four", 3) == "one two three"


def test_a_position_has_the_newest_delivery_of_its_own_review(warehouse):
    planted = plant_reviews(warehouse, written=0.6)
    found = reviewed_positions(warehouse.settings, warehouse.request("text_vectors"), 128).to_pylist()
    assert len(found) == len(planted)
    assert [(row["user_id"], row["position"]) for row in found] == sorted(
        (row["user_id"], row["position"]) for row in found
    )
    texts = {(r["user_id"], r["item_id"]): (r["rating"], review_text(r["title"], r["text"], 128)) for r in planted}
    histories = {row["user_id"]: row for row in read_table(warehouse.uri("sequences")).to_pylist()}
    for row in found:
        assert histories[row["user_id"]]["item_ids"][row["position"]] == row["item_id"]
        assert texts[row["user_id"], row["item_id"]] == (row["rating"], row["text"])
    assert not any("another day" in row["text"] for row in found)
    yesterday = dataclasses.replace(warehouse.request("text_vectors"), partition="2026-01-30")
    with pytest.raises(DataError, match="no rows for 2026-01-30"):
        reviewed_positions(warehouse.settings, yesterday, 128)


def test_a_review_of_another_time_is_not_the_positions(warehouse):
    plant_reviews(warehouse, users=1, written=1)
    reviews = read_table(warehouse.uri("reviews")).to_pylist()
    moved = [{**row, "reviewed_at": row["reviewed_at"] + dt.timedelta(hours=row["source_line"] % 2)} for row in reviews]
    for day in {row["partition_date"] for row in moved}:
        rows = [row for row in moved if row["partition_date"] == day]
        content = pa.Table.from_pylist(rows, schema=REVIEWS.arrow_schema())
        publish(content, REVIEWS, warehouse.uri("reviews"), {"partition_date": day}, IDENTITY)
    found = reviewed_positions(warehouse.settings, warehouse.request("text_vectors"), 128)
    assert found["position"].to_pylist() == [1, 3, 5]


def test_each_distinct_text_is_encoded_once_ever(warehouse, ray_session, monkeypatch):
    plant_reviews(warehouse, users=6)
    request = warehouse.request("text_vectors")
    texts = set(reviewed_positions(warehouse.settings, request, 128)["text"].to_pylist())
    lines = preference_lines(warehouse)
    first = text_vectors.run(request)
    assert first.status == "done"
    assert first.outputs == {"encoder": PACKAGED}
    assert first.counts == {
        "preferences": len(lines),
        "reviews": len(texts),
        "texts": len(lines | texts),
        "encoded": len(lines | texts),
        "cached": 0,
    }
    rows = read_table(warehouse.uri("text_vectors")).to_pylist()
    assert {row["content_hash"] for row in rows} == {text_hash(text) for text in lines | texts}
    some = sorted(lines)[:2] + sorted(texts)[:2]
    stored = text_vectors.vectors_of(warehouse.settings, request, PACKAGED, told(*some))
    assert np.allclose(stored, load_text_encoder(PACKAGED).encode(some), atol=1e-5)

    asked = []

    def counted(texts, *_):
        asked.append(sorted(texts["text"].to_pylist()))
        if texts.num_rows:
            yield pa.table({"content_hash": texts["content_hash"], "vector": [[1.0] * 384] * texts.num_rows})

    monkeypatch.setattr(text_vectors, "encoded", counted)
    again = text_vectors.run(request)
    assert (again.status, again.handoffs, again.counts["encoded"]) == ("reused", first.handoffs, 0)

    day = {"partition_date": dt.date.fromisoformat(PARTITION)}
    preferences = read_table(warehouse.uri("preferences")).to_pylist()
    preferences[0]["preferences"] = ["Find a violin", "Avoid plastic"]
    content = pa.Table.from_pylist(preferences, schema=PREFERENCES.arrow_schema())
    publish(content, PREFERENCES, warehouse.uri("preferences"), day, IDENTITY)
    third = text_vectors.run(request)
    assert (third.status, third.counts["encoded"]) == ("done", 2)
    assert asked == [[], ["Avoid plastic", "Find a violin"]]
    assert third.handoffs["text_vectors"].rows == first.handoffs["text_vectors"].rows + 2
    with pytest.raises(DataError, match=r"1 of 2 texts have no .*, e\.g\. 'Find a cello'; run the stage"):
        text_vectors.vectors_of(warehouse.settings, request, PACKAGED, told("Find a violin", "Find a cello"))


def test_a_day_without_a_text_leaves_an_empty_table(warehouse):
    day = {"partition_date": dt.date.fromisoformat(PARTITION)}
    rows = [
        {**row, "preferences": [], "sentiments": [], "evidence": [], "status": "none"}
        for row in read_table(warehouse.uri("preferences")).to_pylist()
    ]
    content = pa.Table.from_pylist(rows, schema=PREFERENCES.arrow_schema())
    publish(content, PREFERENCES, warehouse.uri("preferences"), day, IDENTITY)
    with pytest.raises(DataError, match=r"no table reviews .* run the stage 'ingest' first"):
        text_vectors.run(warehouse.request("text_vectors"))
    plant_reviews(warehouse, users=1, wordless=True)
    report = text_vectors.run(warehouse.request("text_vectors"))
    assert (report.status, report.counts["texts"], report.handoffs["text_vectors"].rows) == ("reused", 0, 0)
    with pytest.raises(DataError, match="1 of 1 texts have no"):
        text_vectors.vectors_of(warehouse.settings, warehouse.request("text_vectors"), PACKAGED, told("x"))


def test_the_encoder_is_that_of_the_items(warehouse):
    request = warehouse.request("text_vectors", upstream={"item_vectors.encoder": "hub:elsewhere"})
    assert text_vectors.encoder_of(request, text_vectors.TextVectorsSettings()) == "hub:elsewhere"
    assert text_vectors.encoder_of(warehouse.request("text_vectors"), text_vectors.TextVectorsSettings()) == PACKAGED
    with pytest.raises(SettingError, match=r"text_vectors\.max_review_words is 0"):
        text_vectors.TextVectorsSettings(max_review_words=0)
    with pytest.raises(SettingError, match=r"text_vectors\.batch_size is 0"):
        text_vectors.TextVectorsSettings(batch_size=0)
