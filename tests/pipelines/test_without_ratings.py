"""Feeds without ratings become histories; whatever needs stars is refused before an engine or a model starts."""

import datetime as dt
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from infra.settings import Settings
from pipelines.delta_tables import _create, read_table
from pipelines.ingest import run
from pipelines.interactions import newest_reviews
from pipelines.landing.proposals import Stated
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.review_lines import _renderer
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.sequences import TimeCuts, sequences
from pipelines.stages.sequences import SequencesSettings
from pipelines.tools.register import register
from schemas.dataset import Dataset
from schemas.errors import DataError
from schemas.reviews import REVIEWS
from schemas.stage_request import StageRequest

DAY = dt.date(2024, 1, 31)
REQUEST = StageRequest(stage="ingest", dataset="clicks", partition=DAY.isoformat())


def test_clicks_come_through_to_histories(
    spark: SparkSession, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also into a table that an earlier release made, whose ratings may not be null."""
    path = tmp_path / "clicks.parquet"
    at = [dt.datetime(2024, 1, 1) + dt.timedelta(days=day) for day in range(6)]
    clicks = {"who": ["a", "b"] * 3, "what": [1.0, 2.0, 2.0, 1.0, 3.0, 3.0], "when": pa.array(at, pa.timestamp("ns"))}
    pq.write_table(pa.table(clicks), path)
    names = {"user_id": "who", "item_id": "what", "reviewed_at": "when"}
    register(
        "clicks", str(path), datasets_dir=settings.datasets_dir(), review_columns=names, stated=Stated(scale="none")
    )
    uri = settings.table_uri("clicks", "reviews")
    required = (replace(column, nullable=column.nullable and not column.once_required) for column in REVIEWS.columns)
    _create(spark, replace(REVIEWS, columns=tuple(required)), uri)
    assert not read_table(spark, uri).schema["rating"].nullable

    monkeypatch.setattr("pipelines.ingest.load_settings", lambda: settings)
    counts = run(REQUEST).counts
    assert (counts["reviews.ingested"], counts["reviews.quarantined"], counts["items.stubs"]) == (6, 0, 3)
    reviews = read_table(spark, uri)
    assert {(row.user_id, row.item_id, row.rating) for row in reviews.collect()} == {
        (user, item, None) for user, item in zip("ababab", "122133", strict=True)
    }
    cuts = TimeCuts(valid=dt.datetime(2024, 1, 5, tzinfo=dt.UTC), test=dt.datetime(2024, 1, 6, tzinfo=dt.UTC))
    rows = sequences(newest_reviews(reviews, DAY), cuts, SequencesSettings()).collect()
    assert {row.user_id: (row.item_ids, row.ratings) for row in rows} == {
        "a": (["1", "2", "3"], [None] * 3), "b": (["2", "1", "3"], [None] * 3),
    }  # fmt: skip


def test_a_rating_that_is_needed_is_still_gated() -> None:
    column = next(column for column in REVIEWS.columns if column.name == "rating")
    assert (column.nullable, column.once_required) == (True, True)
    then = replace(column, nullable=False, once_required=False)
    same = replace(REVIEWS, columns=tuple(then if one is column else one for one in REVIEWS.columns))
    assert same.schema_hash() == REVIEWS.schema_hash()


def test_only_a_prompt_that_needs_no_stars_reads_a_review_without() -> None:
    by_stars = _renderer(load_chat_prompt("review_preference"), ReviewLineSettings())
    assert by_stars(None, "Soft wool.") is None
    assert "5 stars" in str(by_stars(5.0, "Soft wool."))
    by_words = _renderer(load_chat_prompt("review_opinions"), ReviewLineSettings())
    assert "unknown stars: Soft wool." in str(by_words(None, "Soft wool."))


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StageRequest]:
    """A request for a registered data set of texts without ratings."""
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))

    def request(stage: str, **more: object) -> StageRequest:
        columns = {name: name for name in ("user_id", "item_id", "reviewed_at", "text")}
        files = {"reviews": "s3a://bucket/r.parquet", "format": "columns", "review_columns": columns}
        Dataset(name="clicks", scale="none", **files).save(str(tmp_path / "datasets"))  # type: ignore[arg-type]
        return replace(REQUEST, stage=stage, **more)  # type: ignore[arg-type]

    return request


@pytest.mark.parametrize("stage", ["preferences", "review_summaries"])
def test_a_prompt_that_needs_stars_is_refused_before_spark(texts, stage: str, monkeypatch) -> None:
    from pipelines.stages.entry import run

    monkeypatch.setitem(sys.modules, f"pipelines.{stage}", None)
    with pytest.raises(
        DataError, match=r"review_preference.*needs ratings.*registered without.*review_opinions"
    ) as told:
        run(texts(stage))
    assert len(str(told.value)) <= 300
    with pytest.raises(ImportError):
        run(texts(stage, overrides={"review_lines.prompt": "review_opinions"}))


def test_a_probe_that_learns_from_stars_is_refused_before_ray(texts, monkeypatch) -> None:
    from ray_jobs.stages.entry import run
    from schemas.recipes import RECIPES, Need

    monkeypatch.setitem(sys.modules, "ray_jobs.review_sentiments", None)
    with pytest.raises(DataError, match=r"review_sentiments.classifier probe needs ratings.*hub:"):
        run(texts("review_sentiments"))
    with pytest.raises(ImportError):
        run(texts("review_sentiments", overrides={"review_sentiments.classifier": "hub:x"}))
    monkeypatch.setitem(sys.modules, "ray_jobs.train", None)
    with pytest.raises(ImportError):
        run(texts("train", recipe="sasrec"))
    with pytest.raises(DataError, match=r"the recipe mendertok needs titles, but data set clicks has none"):
        run(texts("train", recipe="mendertok"))
    monkeypatch.setitem(RECIPES, "sasrec", replace(RECIPES["sasrec"], needs=frozenset({Need.RATINGS})))
    with pytest.raises(DataError, match=r"the recipe sasrec needs ratings.*choose one of bert4rec"):
        run(texts("train", recipe="sasrec"))
