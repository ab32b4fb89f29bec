"""The table `reviews`: landed review lines checked, cleaned and de-duplicated."""

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from pipelines.landing.checks import checked_columns, missing, numbered_copies, unexpected, with_problems, wrong_date
from pipelines.landing.cleaning import clean_text
from pipelines.landing.readers import Landed
from pipelines.landing.readers.rows import any_longer, problem
from pipelines.stages.ingest import LandingRules
from schemas.reviews import REVIEWS

MIN_RATING, MAX_RATING = 0.5, 5.0
_STARS = f"expected {MIN_RATING} to {MAX_RATING}; any other scale is registered, with --scale"


def check_reviews(landed: Landed, rules: LandingRules, known_items: DataFrame | None) -> DataFrame:
    """Clean every landed line, find its first problem, and number the copies of its key.

    Args:
        known_items: frame of `item_id`; reviews of other items are refused. None accepts every item.

    Returns:
        One row per landed line: `SOURCE_FIELDS`, the columns of the table without ``partition_date``, `cut` (a text was
        too long), and `copy`: null for a row with a problem, else 1 for the copy to publish, which is the one with the
        longest text, then of the first file and line.
    """
    clean = sf.pandas_udf(_clean_texts, "string")  # type: ignore[call-overload]
    title, text = (sf.left(name, sf.lit(rules.max_text_chars)) for name in ("title", "text"))
    rating = sf.col("rating")
    frame = landed.frame.withColumns(
        {
            "cut": any_longer(rules.max_text_chars, "title", "text"),
            "user_id": sf.trim("user_id"),
            "item_id": sf.trim("item_id"),
            "rating": rating.cast("double"),
            "title": sf.nullif(clean(title), sf.lit("")),
            "text": sf.coalesce(clean(text), sf.lit("")),
        }
    )
    no_stars = rating.isNull() | sf.isnan(rating) | ~rating.between(MIN_RATING, MAX_RATING)
    frame = with_problems(
        frame,
        missing("user_id"),
        missing("item_id"),
        (sf.lit(rules.rated) & no_stars, problem("bad_rating", unexpected("rating", "rating", _STARS))),
        *wrong_date("reviewed_at", rules),
        known_items=known_items,
    )
    frame = numbered_copies(frame.withColumn("rating", rating.cast("float")), REVIEWS, sf.char_length("text").desc())
    return frame.select(checked_columns(REVIEWS, "cut", "copy"))


def _clean_texts(texts: pd.Series) -> pd.Series:
    return texts.map(clean_text, na_action="ignore").astype(object)
