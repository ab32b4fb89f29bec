"""Histories by position, with the user's review at each."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf


def chosen_users(sequences: DataFrame, max_users: int) -> DataFrame:
    """The users that a stage processes: `max_users` by the hash of their id, or all if 0.

    The choice does not depend on the day, so that the next day's run processes the same users.
    """
    users = sequences.select("user_id")
    if max_users == 0:
        return users
    return users.orderBy(sf.sha2("user_id", 256), "user_id").limit(max_users)


def reviewed_positions(sequences: DataFrame, reviews: DataFrame, items: DataFrame, day: dt.date) -> DataFrame:
    """One row per position of every history.

    Args:
        day: later reviews and items are ignored; of repeated deliveries the newest counts.

    Returns:
        user_id, position, as_of, stars, review (the text, else the headline, else null), title, brand
        and categories (of the item; null where unknown).
    """
    key = ("user_id", "item_id", "as_of")
    written = (
        reviews.where(sf.col("partition_date") <= sf.lit(day))
        .groupBy("user_id", "item_id", sf.col("reviewed_at").alias("as_of"))
        .agg(sf.max(sf.struct("partition_date", "source_line", "title", "text")).alias("newest"))
        .select(*key, sf.coalesce(_filled("newest.text"), _filled("newest.title")).alias("review"))
    )
    positions = sequences.select("user_id", sf.posexplode(sf.arrays_zip("item_ids", "occurred_at", "ratings"))).select(
        "user_id",
        sf.col("pos").alias("position"),
        sf.col("col.item_ids").alias("item_id"),
        sf.col("col.occurred_at").alias("as_of"),
        sf.col("col.ratings").alias("stars"),
    )
    return (
        positions.join(written, list(key), "left")
        .join(newest_items(items, day), "item_id", "left")
        .select("user_id", "position", "as_of", "stars", "review", "title", "brand", "categories")
    )


def newest_items(items: DataFrame, day: dt.date) -> DataFrame:
    """item_id, title, brand and categories of each item as known on `day`."""
    return (
        items.where(sf.col("partition_date") <= sf.lit(day))
        .groupBy("item_id")
        .agg(sf.max_by(sf.struct("title", "brand", "categories"), "partition_date").alias("newest"))
        .select("item_id", "newest.title", "newest.brand", "newest.categories")
    )


def product_names(reviews: DataFrame, items: DataFrame, day: dt.date) -> frozenset[str]:
    """Words of titles that are names, in lower case: those that reviewers capitalise more often than not.

    Sources without a brand have it in the title, among words such as ``guitar`` that are not names. Only words in the
    middle of a sentence count, and acronyms (``USB``) are not names.

    Args:
        day: later reviews and items are ignored.
    """
    known = sf.col("partition_date") <= sf.lit(day)
    words = sf.array_distinct(sf.regexp_extract_all(sf.lower("title"), sf.lit("([a-z][a-z']*[a-z])"), sf.lit(1)))
    in_titles = items.where(known).select(sf.explode(words).alias("word")).distinct()
    middle = sf.regexp_extract_all("text", sf.lit(r"(?<=[a-z,] )[A-Za-z][A-Za-z']*[A-Za-z]"), sf.lit(0))
    written = reviews.where(known).select(sf.explode(middle).alias("written"))
    capital = sf.col("written").rlike("^[A-Z].*[a-z]")
    rows = (
        written.groupBy(sf.lower("written").alias("word"))
        .agg(sf.mean(capital.cast("double")).alias("capital"))
        .where("capital > 0.5")
        .join(in_titles, "word", "left_semi")
        .collect()
    )
    return frozenset(row.word for row in rows)


def _filled(column: str) -> Column:
    text = sf.trim(sf.col(column))
    return sf.when(text != "", text)
