"""Gates: which checks stop a run, which only warn, and what the messages and pages say."""

import datetime as dt
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.settings import Settings
from pipelines.delta_tables import conform, read_table
from pipelines.gates.gate import Gate, checks_of
from pipelines.gates.result import GateResult
from pipelines.publisher import Publisher
from schemas.errors import LONGEST_MESSAGE, DataError, GateFailed
from schemas.handoff import Handoff
from schemas.interactions import INTERACTIONS
from schemas.quarantine import QUARANTINE
from schemas.reviews import REVIEWS
from schemas.stage_request import StageRequest

DAY = {"partition_date": dt.date(2026, 1, 1)}
REQUEST = StageRequest(stage="ingest", dataset="world", partition="2026-01-01")


def reviews(spark: SparkSession, rows: int = 10, rating: float = 4.0, text: str = "good") -> DataFrame:
    frame = spark.range(rows).select(
        sf.concat(sf.lit("u"), "id").alias("user_id"),
        sf.lit("i").alias("item_id"),
        sf.timestamp_seconds(sf.col("id")).alias("reviewed_at"),
        sf.lit(rating).cast("float").alias("rating"),
        sf.lit(None).cast("string").alias("title"),
        sf.lit(text).alias("text"),
        sf.lit(True).alias("verified"),
        sf.lit(None).cast("int").alias("helpful_votes"),
        sf.col("id").alias("source_line"),
    )
    return conform(frame, REVIEWS, DAY)


@pytest.fixture
def gate(spark: SparkSession, tmp_path: Path) -> Gate:
    return Gate(spark, str(tmp_path / "docs"))


def test_every_table_gates_rows_nulls_and_key() -> None:
    names = [(check.expectation, check.arguments.get("column")) for check in checks_of(REVIEWS)]
    assert names[0] == ("ExpectTableRowCountToBeBetween", None)
    assert ("ExpectColumnValuesToNotBeNull", "user_id") in names
    assert ("ExpectColumnValuesToNotBeNull", "title") not in names
    assert ("ExpectCompoundColumnsToBeUnique", None) in names
    assert "ExpectTableRowCountToBeBetween" not in [check.expectation for check in checks_of(QUARANTINE)]


def test_warnings_are_reported_and_do_not_stop(spark: SparkSession, gate: Gate, tmp_path: Path) -> None:
    before = set(spark.sparkContext._jsc.getPersistentRDDs())
    result = gate.check(reviews(spark, text=""), REVIEWS, "2026-01-01")
    assert (result.status_name, result.rows) == ("warned", 10)
    assert [(w.subject, w.unexpected, len(w.examples)) for w in result.warnings()] == [("text", 10, 5)]
    assert set(spark.sparkContext._jsc.getPersistentRDDs()) <= before, "Spark may have dropped some, but keeps no other"

    index = (tmp_path / "docs" / "index.html").read_text()
    page = (tmp_path / "docs" / "tables" / "reviews--2026-01-01.html").read_text()
    assert 'href="tables/reviews--2026-01-01.html"' in index
    assert "warned" in index
    assert result.warnings()[0].reason in page
    for text in (index, page):
        assert re.findall(r"(?:src|href)=\"(?:https?:)?//|@import|<script", text) == []


def test_every_broken_check_is_named_with_counts_and_rows(spark: SparkSession, gate: Gate, tmp_path: Path) -> None:
    broken = reviews(spark).union(reviews(spark, rows=1, rating=9.0))
    broken = broken.withColumn("item_id", sf.when(sf.col("user_id") != "u7", sf.col("item_id")))
    with pytest.raises(GateFailed) as caught:
        gate.check(broken, REVIEWS, "2026-01-01")
    message = str(caught.value)
    assert "table reviews, partition 2026-01-01: 3 of 10 checks failed on 11 rows" in message
    assert "ExpectColumnValuesToNotBeNull on item_id: 1 of 11 rows break it" in message
    assert len(message) <= LONGEST_MESSAGE
    assert message.endswith("reviews--2026-01-01.html")
    (record,) = (tmp_path / "docs" / "results").glob("*.json")
    every = GateResult.from_dict(json.loads(record.read_text())).failures()
    told = " ".join(outcome.describe() for outcome in every)
    assert "ExpectColumnValuesToNotBeNull on item_id: 1 of 11 rows break it; rows such as user_id='u7'" in told
    assert "ExpectCompoundColumnsToBeUnique on user_id, item_id, reviewed_at: 2 of 11 rows break it" in told
    assert "ExpectColumnValuesToBeBetween on rating (min_value=0.5, max_value=5.0): 1 of 11 rows break it" in told
    assert "reviewed_at=1970-01-01 00:00:00, rating=9.0" in told
    assert "failed" in (tmp_path / "docs" / "index.html").read_text()


def test_failed_gate_leaves_nothing_to_read_and_a_mended_rerun_publishes(
    spark: SparkSession, settings: Settings
) -> None:
    with Publisher(spark, settings, REQUEST) as publisher:
        with pytest.raises(GateFailed, match="ExpectTableRowCountToBeBetween on rows"):
            publisher.publish(reviews(spark, rows=0), REVIEWS)
        with pytest.raises(DataError, match="no table reviews"):
            publisher.read(REVIEWS)
        handoff = publisher.publish(reviews(spark), REVIEWS)
        assert publisher.read(REVIEWS).count() == handoff.rows == 10


def test_reads_are_at_the_version_of_the_request(spark: SparkSession, settings: Settings) -> None:
    frame = reviews(spark).select("user_id", "item_id", sf.col("reviewed_at").alias("occurred_at"), "rating")
    with Publisher(spark, settings, replace(REQUEST, stage="sequences")) as publisher:
        first: Handoff = publisher.publish(frame, INTERACTIONS)
        publisher.publish(frame.limit(4), INTERACTIONS)
        assert publisher.read(INTERACTIONS).count() == 4
    pinned = StageRequest(stage="x", dataset="world", partition="2026-01-01", inputs={"interactions": first})
    assert Publisher(spark, settings, pinned).read(INTERACTIONS).count() == 10


def test_a_stage_replaces_its_own_quarantined_rows_only(spark: SparkSession, settings: Settings) -> None:
    refused = spark.createDataFrame(
        [("f:1", "bad_date", "d", "r"), ("f:2", "bad_date", "d", "r"), ("f:3", "no_item", "d", "r")],
        "row_key string, reason string, detail string, raw string",
    )
    with Publisher(spark, settings, REQUEST) as publisher:
        assert publisher.quarantine(refused) == {"bad_date": 2, "no_item": 1}
        assert publisher.handoffs["quarantine"].rows == 3
        with Publisher(spark, settings, replace(REQUEST, stage="preferences")) as other:
            other.quarantine(refused.limit(1))
        assert publisher.quarantine(refused.limit(0)) == {}
        assert publisher.handoffs["quarantine"].rows == 0
    (left,) = read_table(spark, settings.table_uri("world", "quarantine")).collect()
    assert (left.stage, left.row_key) == ("preferences", "f:1")


def test_a_gate_that_cannot_be_loaded_ahead_says_so_when_it_is_needed() -> None:
    code = (
        "import sys; sys.modules['great_expectations'] = None\n"
        "import threading; from pipelines.gates.ahead import load_ahead\n"
        "load_ahead(); [t.join() for t in threading.enumerate() if t.name == 'load-gate']\n"
        "print('loaded ahead'); from pipelines.gates.gate import Gate"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "loaded ahead\n")
    assert done.stderr.count("Traceback") == 1
    assert "great_expectations" in done.stderr.splitlines()[-1]
