"""MovieLens: ``ratings.csv`` and ``movies.csv``, plain or .gz. There are no texts, only ratings and titles."""

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from pipelines.landing.csv_rows import Layout
from pipelines.landing.readers import columns
from pipelines.landing.readers.placed import Landed

_RATINGS = {"user_id": "userId", "item_id": "movieId", "rating": "rating", "reviewed_at": "timestamp"}
_MOVIES = {"item_id": "movieId", "title": "title", "categories": "genres"}
_NO_GENRES = "(no genres listed)"


def read_reviews(spark: SparkSession, path: str, max_line_bytes: int, layout: Layout | None = None) -> Landed:
    """Every line of a rating file."""
    return columns.read_reviews(spark, path, _RATINGS, max_line_bytes, layout=layout)


def read_items(spark: SparkSession, path: str, max_line_bytes: int, layout: Layout | None = None) -> Landed:
    """Every line of a movie file; genres are its categories."""
    landed = columns.read_items(spark, path, _MOVIES, max_line_bytes, category_separators="|", layout=layout)
    return Landed(landed.frame.withColumn("categories", sf.array_remove("categories", _NO_GENRES)), landed.lines)
