"""The table `reviews`: landed review lines checked, cleaned and de-duplicated."""

import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

from pipelines.landing.cleaning import clean_text
from pipelines.landing.readers import PLACE, Landed
from pipelines.landing.readers.placed import first_problem, problem, texts_cut
from pipelines.review_rules import UNKNOWN_ITEM, ReviewRules
from schemas.reviews import REVIEWS

MIN_RATING, MAX_RATING = 0.5, 5.0
_STARS = f"expected {MIN_RATING} to {MAX_RATING}; any other scale is registered, with --scale"


def check_reviews(landed: Landed, rules: ReviewRules, known_items: DataFrame | None) -> DataFrame:
    """Every landed line with cleaned columns, the first problem found, and its rank among copies of its key.

    Args:
        known_items: frame of `item_id`; reviews of other items are refused. None lets every item pass.

    Returns:
        One row per landed line: the columns of `PLACE` and of the table without ``partition_date``; `cut`, true where a
        text was too long; and `copy`, which is 1 for the winner of a key (user_id, item_id, reviewed_at): longest text,
        then first file and line. `copy` counts rows without a problem only.
    """
    clean = sf.pandas_udf(_clean_texts, "string")  # type: ignore[call-overload]
    user, item = sf.trim("user_id"), sf.trim("item_id")
    title, text = (sf.left(name, sf.lit(rules.max_text_chars)) for name in ("title", "text"))
    frame = landed.frame.select(
        *PLACE,
        user.alias("user_id"),
        item.alias("item_id"),
        "reviewed_at",
        "date_raw",
        sf.col("rating").cast("double").alias("rating"),
        sf.nullif(clean(title), sf.lit("")).alias("title"),
        sf.coalesce(clean(text), sf.lit("")).alias("text"),
        texts_cut(rules.max_text_chars, "title", "text").alias("cut"),
        "verified",
        "helpful_votes",
    )
    found = first_problem(
        missing("user_id", "missing_user_id"),
        missing("item_id", "missing_item_id"),
        (
            sf.lit(rules.rated)
            & (sf.col("rating").isNull() | sf.isnan("rating") | ~sf.col("rating").between(MIN_RATING, MAX_RATING)),
            problem("bad_rating", told("rating", "rating", _STARS)),
        ),
        *date_cases("reviewed_at", rules),
    )
    frame = frame.withColumn("problem", sf.coalesce("problem", found)).drop("date_raw")
    if known_items is not None:
        frame = unknown_item(frame, known_items)
    fine = sf.col("problem").isNull()
    copies = Window.partitionBy(fine, *REVIEWS.key).orderBy(
        sf.char_length("text").desc(), sf.col("source_file"), sf.col("source_line")
    )
    return frame.select(
        *PLACE,
        "user_id",
        "item_id",
        "reviewed_at",
        sf.col("rating").cast("float").alias("rating"),
        "title",
        "text",
        "verified",
        "helpful_votes",
        "cut",
        sf.when(fine, sf.row_number().over(copies)).alias("copy"),
    )


def winners(checked: DataFrame) -> DataFrame:
    """The rows of `checked` to publish: valid, and the first of its copies."""
    columns = [name for name in REVIEWS.column_names() if name != "partition_date"]
    return checked.where(sf.col("copy") == 1).select(columns)


def _clean_texts(texts: pd.Series) -> pd.Series:
    return texts.map(clean_text, na_action="ignore").astype(object)


def date_cases(name: str, rules: ReviewRules) -> tuple[tuple[Column, Column], ...]:
    """The cases of a time that is missing or outside the days of `rules`; ``date_raw`` is what the file has."""
    outside = sf.concat(
        sf.date_format(name, "yyyy-MM-dd"),
        sf.lit(f" is not within {rules.earliest} to {rules.latest} (settings of ingest)"),
    )
    return (
        (sf.col(name).isNull(), problem("bad_date", told("date", "date_raw", "no time can be read from it"))),
        (~sf.to_date(name).between(sf.lit(rules.earliest), sf.lit(rules.latest)), problem("bad_date", outside)),
    )


def unknown_item(frame: DataFrame, known_items: DataFrame) -> DataFrame:
    """`frame` with a problem where `known_items` lacks the item and there is no other."""
    known = known_items.select("item_id").distinct().withColumn("_known", sf.lit(True))
    detail = sf.concat(
        sf.lit("no metadata for item "),
        sf.left("item_id", sf.lit(60)),
        sf.lit("; deliver it, or register with --unknown-items keep"),
    )
    lacking = sf.when(sf.col("_known").isNull(), problem(UNKNOWN_ITEM, detail))
    return frame.join(known, "item_id", "left").withColumn("problem", sf.coalesce("problem", lacking)).drop("_known")


def missing(name: str, reason: str) -> tuple[Column, Column]:
    """The case of a text that is absent or empty."""
    detail = f"{name} is absent or empty; deliver the line again with it"
    return sf.coalesce(sf.col(name), sf.lit("")) == "", problem(reason, detail)


def told(label: str, column: str, expected: str) -> Column:
    """What a column has, and what was expected there."""
    shown = sf.coalesce(sf.left(sf.col(column).cast("string"), sf.lit(60)), sf.lit("absent"))
    return sf.concat(sf.lit(f"{label} is "), shown, sf.lit(f"; {expected}"))
