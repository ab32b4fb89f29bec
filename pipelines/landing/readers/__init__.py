"""Readers: landing files of every supported format as frames with the same columns.

All of them give `SOURCE_FIELDS`, then `REVIEW_FIELDS`, `ITEM_FIELDS` or `EVENT_FIELDS`: one row per line (or record)
of the files, none left out. Cleaning and checks, which are the same for all formats, follow in `pipelines.reviews`,
`pipelines.items` and `pipelines.events`.
"""

from dataclasses import replace

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from pipelines.landing.csv_rows import Layout
from pipelines.landing.readers import amazon, columns
from pipelines.landing.readers.rows import SOURCE_FIELDS, Landed
from pipelines.landing.text_files import landing_path
from schemas.dataset import Dataset

__all__ = ["SOURCE_FIELDS", "Landed", "read_events", "read_items", "read_reviews"]

_MOVIELENS_RATINGS = {"user_id": "userId", "item_id": "movieId", "rating": "rating", "reviewed_at": "timestamp"}
_MOVIELENS_MOVIES = {"item_id": "movieId", "title": "title", "categories": "genres"}
_MOVIELENS_NO_GENRES = "(no genres listed)"


def read_reviews(spark: SparkSession, dataset: Dataset, partition: str, max_line_bytes: int) -> Landed:
    """Every line of the review file of a partition."""
    path = landing_path(dataset.reviews, partition, dataset.name)
    if dataset.format.startswith("amazon"):
        return amazon.read_reviews(spark, path, dataset.format, max_line_bytes, _layout(dataset))
    mapping = _MOVIELENS_RATINGS if dataset.format == "movielens" else dataset.review_columns
    return columns.read_reviews(spark, path, mapping, max_line_bytes, dataset.spelling(), _layout(dataset))


def read_items(spark: SparkSession, dataset: Dataset, partition: str, max_line_bytes: int) -> Landed | None:
    """Every line of the item file of a partition; None where the data set has none."""
    if dataset.items is None:
        return None
    path = landing_path(dataset.items, partition, dataset.name)
    if dataset.format.startswith("amazon"):
        return amazon.read_items(spark, path, dataset.format, max_line_bytes, _layout(dataset))
    if dataset.format != "movielens":
        return columns.read_items(spark, path, dataset.item_columns, max_line_bytes, _layout(dataset))
    landed = columns.read_items(spark, path, _MOVIELENS_MOVIES, max_line_bytes, _layout(dataset), "|")
    genres = sf.array_remove("categories", _MOVIELENS_NO_GENRES)
    return replace(landed, frame=landed.frame.withColumn("categories", genres))


def read_events(spark: SparkSession, dataset: Dataset, partition: str, max_line_bytes: int) -> Landed | None:
    """Every line of the event file of a partition; None where the data set has none."""
    if dataset.events is None:
        return None
    path = landing_path(dataset.events, partition, dataset.name)
    return columns.read_events(
        spark, path, dataset.event_columns, max_line_bytes, dataset.event_spelling(), _layout(dataset)
    )


def _layout(dataset: Dataset) -> Layout:
    return Layout(encoding=dataset.encoding, separator=dataset.separator, escape=dataset.escape)
