"""Readers: landing files of every supported format as frames with the same columns.

`read_reviews` gives `REVIEW_FIELDS`, `read_items` `ITEM_FIELDS` and `read_events` `EVENT_FIELDS`, all with `PLACE` in
front: one row per line (or record) of the files, none left out. Cleaning and the checks that all formats share come
later, in `pipelines.reviews`, `pipelines.items` and `pipelines.events`.
"""

from pyspark.sql import SparkSession

from pipelines.landing.csv_rows import Layout
from pipelines.landing.paths import landing_path
from pipelines.landing.readers import amazon, columns, movielens
from pipelines.landing.readers.placed import ITEM_FIELDS, PLACE, REVIEW_FIELDS, Landed
from schemas.dataset import Dataset

__all__ = ["ITEM_FIELDS", "PLACE", "REVIEW_FIELDS", "Landed", "read_events", "read_items", "read_reviews"]


def read_reviews(spark: SparkSession, dataset: Dataset, partition: str, max_line_bytes: int) -> Landed:
    """Every line of the review file of a partition."""
    path = landing_path(dataset.reviews, partition, dataset.name)
    match dataset.format:
        case "movielens":
            return movielens.read_reviews(spark, path, max_line_bytes, _layout(dataset))
        case "columns":
            return columns.read_reviews(
                spark, path, dataset.review_columns, max_line_bytes, dataset.spelling(), layout=_layout(dataset)
            )
        case release:
            return amazon.read_reviews(spark, path, release, max_line_bytes, _layout(dataset))


def read_items(spark: SparkSession, dataset: Dataset, partition: str, max_line_bytes: int) -> Landed | None:
    """Every line of the item file of a partition; None where the data set has none."""
    if dataset.items is None:
        return None
    path = landing_path(dataset.items, partition, dataset.name)
    match dataset.format:
        case "movielens":
            return movielens.read_items(spark, path, max_line_bytes, _layout(dataset))
        case "columns":
            return columns.read_items(spark, path, dataset.item_columns, max_line_bytes, layout=_layout(dataset))
        case release:
            return amazon.read_items(spark, path, release, max_line_bytes, _layout(dataset))


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
