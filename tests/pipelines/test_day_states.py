"""Partitions hold only those who changed, and both engines read from them what was known on each day."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines import day_states
from pipelines.day_states import changes, read_day, with_digest
from pipelines.delta_tables import read_table, table_exists, write_partition
from ray_jobs.data.day_states import state
from ray_jobs.data.tables import open_table
from schemas.preferences import PREFERENCES
from schemas.run_identity import RunIdentity
from schemas.table import DIGEST, SINCE

IDENTITY = RunIdentity(dag="d", partition="2026-01-01", recipe="r", config_hash="c")
FIRST = dt.date(2026, 1, 1)
Known = Mapping[str, tuple[str, ...]]
"""The preference at each position, by user."""


def rows_of(known: Known) -> list[dict]:
    return [
        {
            "user_id": user,
            "position": position,
            "as_of": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            "preferences": [text],
            "sentiments": ["like"],
            "evidence": [[position]],
            "status": "ok",
            "partition_date": FIRST,
        }
        for user, texts in known.items()
        for position, text in enumerate(texts)
    ]


@dataclass
class Days:
    """The table preferences over some days."""

    spark: SparkSession
    uri: str
    said: dict[int, Known] = field(default_factory=dict)

    def frame(self, known: Known) -> DataFrame:
        rows = pa.Table.from_pylist(rows_of(known), PREFERENCES.arrow_schema())
        return self.spark.createDataFrame(rows).drop("partition_date", SINCE.name, DIGEST.name)

    def publish(self, day: int, known: Known) -> int:
        """Write a day, counted from the first; the number of its rows."""
        self.said[day] = known
        date = FIRST + dt.timedelta(days=day)
        rows = with_digest(self.frame(known), PREFERENCES)
        if table_exists(self.spark, self.uri):
            changed = changes(rows, PREFERENCES, read_table(self.spark, self.uri), self.uri, date)
            rows = changed.of(rows)
        written = write_partition(self.spark, rows, PREFERENCES, self.uri, {"partition_date": date}, IDENTITY)
        return written.rows

    def written(self, day: int) -> set[str]:
        stored = read_table(self.spark, self.uri).where(sf.col("partition_date") == FIRST + dt.timedelta(days=day))
        return {row.user_id for row in stored.select("user_id").distinct().collect()}

    def require_every_day(self) -> None:
        """Both engines read each day as it was given."""
        columns = ["user_id", "position", "preferences"]
        for day, known in self.said.items():
            date = FIRST + dt.timedelta(days=day)
            expected = sorted((user, n, [text]) for user, texts in known.items() for n, text in enumerate(texts))
            by_arrow = state(open_table(self.uri), PREFERENCES, date, columns).to_pylist()
            assert sorted(tuple(row.values()) for row in by_arrow) == expected, day
            by_spark = read_day(self.spark, self.uri, date)
            assert sorted(tuple(row) for row in by_spark.select(*columns).collect()) == expected, day
            assert by_spark.where(sf.col("partition_date") != date).isEmpty()


@pytest.fixture
def days(spark: SparkSession, tmp_path) -> Days:
    return Days(spark, str(tmp_path / "preferences"))


def test_a_day_holds_those_who_changed_or_everybody(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {user: (f"{user} likes tea", f"{user} likes wood") for user in "abcdef"}
    assert days.publish(0, known) == 12
    grown = {**known, "b": (*known["b"], "b likes rain"), "g": ("g likes snow",)}
    assert days.publish(1, grown) == 4
    assert days.written(1) == {"b", "g"}
    assert days.publish(2, grown) == 2, "a day without a change has the rows of one user"
    back = {**grown, "b": known["b"], "a": (known["a"][0], "a avoids wood")}
    assert days.publish(3, back) == 4
    assert days.written(3) == {"a", "b"}

    version = open_table(days.uri).version()
    assert days.publish(3, back) == 4
    assert open_table(days.uri).version() == version, "a rerun changes nothing"

    fewer = {user: texts for user, texts in back.items() if user != "c"}
    assert days.publish(4, fewer) == 11
    assert days.written(4) == set("abdefg"), "somebody is gone, so everybody is written"
    monkeypatch.setattr(day_states, "MOST_DAYS", 2)
    days.publish(5, {**fewer, "g": ("g likes mud",)})
    assert days.written(5) == {"g"}
    days.publish(6, {**fewer, "g": ("g likes clay",)})
    assert days.written(6) == set("abdefg"), "the last partition with everybody is old"
    days.require_every_day()


def test_an_older_day_that_is_made_again_gives_later_ones_another_base(days: Days) -> None:
    known = {user: (f"{user} likes tea",) for user in "abcdef"}
    days.publish(1, known)
    days.publish(2, {**known, "a": ("a likes rain",)})
    days.publish(0, known)
    days.publish(1, known)
    assert days.written(1) == {"a"}, "the base is the older day now"
    days.require_every_day()


def test_a_table_of_an_earlier_release_goes_on(days: Days) -> None:
    known = {user: (f"{user} likes tea",) for user in "abcdef"}
    earlier = days.frame(known).withColumn("partition_date", sf.lit(FIRST))
    earlier.write.format("delta").partitionBy("partition_date").save(days.uri)
    days.said[0] = known
    assert days.publish(1, known) == 6, "its rows have no digests to compare with"
    assert days.publish(2, {**known, "a": ("a likes rain",)}) == 1
    days.require_every_day()
