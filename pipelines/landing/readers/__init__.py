"""Readers: landing files of every supported format as frames with the same columns.

`read_reviews` gives `REVIEW_FIELDS`, `read_items` gives `ITEM_FIELDS`, both with `PLACE` in front: one row per line
(or record) of the files, none left out. Cleaning and the checks that all formats share come later, in
`pipelines.reviews` and `pipelines.items`.
"""

from pathlib import Path

from pyspark.sql import SparkSession

from pipelines.landing.csv_rows import Layout
from pipelines.landing.readers import amazon, columns, movielens
from pipelines.landing.readers.placed import ITEM_FIELDS, PLACE, REVIEW_FIELDS, Landed
from pipelines.landing.text_files import parts
from schemas.dataset import Dataset
from schemas.errors import DataError

__all__ = ["ITEM_FIELDS", "PLACE", "REVIEW_FIELDS", "Landed", "landing_path", "read_items", "read_reviews"]


def landing_path(pattern: str, partition: str, dataset: str) -> str:
    """The path of a partition's file.

    Raises:
        DataError: a local file is not there, or has a name that readers skip; the message says what to do.
    """
    path = pattern.replace("{partition}", partition)
    if "://" in path:
        return path
    if not Path(path).exists():
        raise DataError(
            f"data set {dataset}: no file {path}; deliver it, or register the data set again (penchant register)"
        )
    parts(Path(path))
    return path


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


def _layout(dataset: Dataset) -> Layout:
    return Layout(encoding=dataset.encoding, separator=dataset.separator, escape=dataset.escape)
