"""The table interactions: users, items and times of events inside the k-core."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf

from schemas.errors import DataError


@dataclass(frozen=True, kw_only=True)
class CoreSize:
    """Size of the data after one step of the k-core; `pairs` counts distinct (user, item)."""

    users: int
    items: int
    pairs: int


def newest_reviews(reviews: DataFrame, day: dt.date) -> DataFrame:
    """Events known on `day`, from the reviews of all partitions up to it.

    The same (user, item, time) delivered on several days is one event with the rating and line of the newest day.

    Returns:
        user_id, item_id, occurred_at, rating, delivered (the winning partition), source_line.
    """
    return (
        reviews.where(sf.col("partition_date") <= sf.lit(day))
        .groupBy("user_id", "item_id", sf.col("reviewed_at").alias("occurred_at"))
        .agg(sf.max(sf.struct("partition_date", "source_line", "rating")).alias("newest"))
        .select(
            "user_id",
            "item_id",
            "occurred_at",
            sf.col("newest.rating").alias("rating"),
            sf.col("newest.partition_date").alias("delivered"),
            sf.col("newest.source_line").alias("source_line"),
        )
    )


def newest_events(events: DataFrame, day: dt.date, actions: Sequence[str]) -> DataFrame:
    """As `newest_reviews`, for rows of the table events, which have no rating.

    Args:
        actions: those that count; all where empty. Several at the same time are one event.
    """
    known = events.where(sf.col("partition_date") <= sf.lit(day))
    if actions:
        known = known.where(sf.col("action").isin(*actions))
    reviews = known.withColumn("rating", sf.lit(None).cast("float"))
    return newest_reviews(reviews.withColumnRenamed("occurred_at", "reviewed_at"), day)


def k_core(
    events: DataFrame, user_core: int, item_core: int, max_iterations: int
) -> tuple[DataFrame, tuple[CoreSize, ...]]:
    """The largest part of `events` in which every user has `user_core` items and every item `item_core` users.

    Degrees count distinct (user, item) pairs, so that repeated events of one user cannot lift an item over the
    threshold; all events of a pair that stays are kept. Each step removes users and items below their threshold
    together, until a step removes nothing; the result does not depend on the order.

    Returns:
        The events that stay, and the sizes before the first step and after each.

    Raises:
        DataError: nothing stays, or it is not stable after `max_iterations` steps.
    """
    pairs = events.select("user_id", "item_id").distinct().localCheckpoint()
    sizes = [_size(pairs)]
    while user_core > 1 or item_core > 1:
        pairs = (
            pairs.withColumn("_user", sf.count(sf.lit(1)).over(Window.partitionBy("user_id")))
            .withColumn("_item", sf.count(sf.lit(1)).over(Window.partitionBy("item_id")))
            .where((sf.col("_user") >= user_core) & (sf.col("_item") >= item_core))
            .select("user_id", "item_id")
            .localCheckpoint()
        )
        sizes.append(_size(pairs))
        if sizes[-1].pairs == 0:
            before = sizes[0]
            raise DataError(
                f"the k-core with user_core={user_core} and item_core={item_core} leaves nothing of {before.pairs:,} "
                f"user-item pairs ({before.users:,} users, {before.items:,} items); lower sequences.user_core or "
                "sequences.item_core, or bring more data"
            )
        if sizes[-1] == sizes[-2]:
            break
        if len(sizes) > max_iterations:
            raise DataError(
                f"the k-core still shrinks after {max_iterations} steps (now {sizes[-1]}); raise "
                "sequences.max_core_iterations"
            )
    return events.join(pairs, ["user_id", "item_id"], "left_semi"), tuple(sizes)


def _size(pairs: DataFrame) -> CoreSize:
    row = pairs.agg(
        sf.count_distinct("user_id").alias("users"),
        sf.count_distinct("item_id").alias("items"),
        sf.count(sf.lit(1)).alias("pairs"),
    ).first()
    assert row is not None
    return CoreSize(users=row.users, items=row.items, pairs=row.pairs)
