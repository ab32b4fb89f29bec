"""The table interactions: users, items and times of events inside the k-core."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as sf

from pipelines.spark import joinable
from schemas.errors import DataError

HELD_BYTES = 512 << 20
"""Bytes of identifiers that the driver holds to find the k-core; half of what Spark lets a driver collect."""
_LINE_BITS = 40
"""Bits of a number for a line of a landing file; the others are for the day."""


@dataclass(frozen=True, kw_only=True)
class CoreSize:
    """Size of the data after one step of the k-core; `pairs` counts distinct (user, item)."""

    users: int
    items: int
    pairs: int


def newest_reviews(reviews: DataFrame, day: dt.date, *more: Column) -> DataFrame:
    """Events known on `day`, from the reviews of all partitions up to it.

    The same (user, item, time) delivered on several days is one event with the rating and line of the newest day. All
    events of a user are in the same partition of the frame, so that what follows by user moves no rows.

    Args:
        more: columns to keep of the winning row, under their names.

    Returns:
        user_id, item_id, occurred_at, rating, delivered (the winning partition), source_line, copies (the event's rows
        in `reviews`), and `more`.
    """
    # One number, because Spark aggregates structs by sorting all rows.
    day_number = sf.unix_date("partition_date").cast("bigint")
    place = sf.shiftleft(day_number, _LINE_BITS) + sf.col("source_line")
    known = reviews.where(sf.col("partition_date") <= sf.lit(day)).select(
        "user_id", "item_id", sf.col("reviewed_at").alias("occurred_at"), "rating", place.alias("_place"), *more
    )
    kept = known.columns[5:]
    return (
        known.repartition("user_id")
        .groupBy("user_id", "item_id", "occurred_at")
        .agg(
            sf.max("_place").alias("_newest"),
            sf.count(sf.lit(1)).alias("copies"),
            *(sf.max_by(name, "_place").alias(name) for name in ("rating", *kept)),
        )
        .select(
            "user_id",
            "item_id",
            "occurred_at",
            "rating",
            sf.date_from_unix_date(sf.shiftright("_newest", _LINE_BITS).cast("int")).alias("delivered"),
            sf.col("_newest").bitwiseAND((1 << _LINE_BITS) - 1).alias("source_line"),
            "copies",
            *kept,
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
    events: DataFrame, user_core: int, item_core: int, max_iterations: int, held_bytes: int = HELD_BYTES
) -> tuple[DataFrame, tuple[CoreSize, ...]]:
    """The largest part of `events` in which every user has `user_core` items and every item `item_core` users.

    Degrees count distinct (user, item) pairs, so that repeated events of one user cannot lift an item over the
    threshold; all events of a pair that stays are kept. Each step removes users and items below their threshold
    together, until a step removes nothing; the result does not depend on the order.

    Args:
        events: evaluated several times: cache it where that is expensive.
        held_bytes: the driver counts where the identifiers of all pairs take at most so many bytes; Spark does, with
            two shuffles a step, until they do.

    Returns:
        The events that stay, and the sizes before the first step and after each.

    Raises:
        DataError: nothing stays, or it is not stable after `max_iterations` steps.
    """
    pairs = _gathered(_Spread(events.select("user_id", "item_id")), held_bytes)
    sizes = [pairs.size()]
    while user_core > 1 or item_core > 1:
        pairs = _gathered(pairs.step(user_core, item_core), held_bytes)
        sizes.append(pairs.size())
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
    kept = events
    if len(sizes) > 1:
        # Pairs leave with their user or their item only: what stays is all events between those that stay.
        for ids, rows in zip(pairs.sides(), (sizes[-1].users, sizes[-1].items), strict=True):
            kept = kept.join(joinable(ids, rows), ids.columns, "left_semi")
    return kept.select(events.columns), tuple(sizes)


@dataclass(frozen=True)
class _Spread:
    """Pairs in Spark, which may repeat."""

    pairs: DataFrame

    def size(self) -> CoreSize:
        row = self.pairs.agg(
            sf.count_distinct("user_id").alias("users"),
            sf.count_distinct("item_id").alias("items"),
            sf.count_distinct("user_id", "item_id").alias("pairs"),
        ).first()
        assert row is not None
        return CoreSize(users=row.users, items=row.items, pairs=row.pairs)

    def step(self, user_core: int, item_core: int) -> "_Spread":
        return _Spread(
            self.pairs.distinct()
            .withColumn("_user", sf.count(sf.lit(1)).over(Window.partitionBy("user_id")))
            .withColumn("_item", sf.count(sf.lit(1)).over(Window.partitionBy("item_id")))
            .where((sf.col("_user") >= user_core) & (sf.col("_item") >= item_core))
            .select("user_id", "item_id")
            .localCheckpoint()
        )

    def sides(self) -> list[DataFrame]:
        return [self.pairs.select(name).distinct() for name in ("user_id", "item_id")]


@dataclass(frozen=True)
class _Held:
    """Pairs in the driver: positions in the lists of all identifiers."""

    spark: SparkSession
    user_ids: pa.Array
    item_ids: pa.Array
    users: np.ndarray
    items: np.ndarray

    def size(self) -> CoreSize:
        degrees = self._degrees()
        users, items = (int(np.count_nonzero(degree)) for degree in degrees)
        return CoreSize(users=users, items=items, pairs=len(self.users))

    def step(self, user_core: int, item_core: int) -> "_Held":
        by_user, by_item = self._degrees()
        stay = (by_user >= user_core)[self.users] & (by_item >= item_core)[self.items]
        return replace(self, users=self.users[stay], items=self.items[stay])

    def sides(self) -> list[DataFrame]:
        lists = zip(("user_id", "item_id"), (self.user_ids, self.item_ids), self._degrees(), strict=True)
        return [self.spark.createDataFrame(pa.table({name: ids.filter(pa.array(n > 0))})) for name, ids, n in lists]

    def _degrees(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.bincount(self.users, minlength=len(self.user_ids)),
            np.bincount(self.items, minlength=len(self.item_ids)),
        )


def _gathered(pairs: _Spread | _Held, most: int) -> _Spread | _Held:
    """`pairs` in the driver if their identifiers take at most `most` bytes."""
    if isinstance(pairs, _Held):
        return pairs
    row = pairs.pairs.agg(sf.sum(sf.octet_length("user_id") + sf.octet_length("item_id"))).first()
    if row is None or (row[0] or 0) > most:
        return pairs
    found = pairs.pairs.toArrow()
    users, items = (found[name].combine_chunks().dictionary_encode() for name in ("user_id", "item_id"))
    width = max(1, len(items.dictionary))
    codes = users.indices.to_numpy().astype(np.int64) * width + items.indices.to_numpy()
    return _Held(pairs.pairs.sparkSession, users.dictionary, items.dictionary, *np.divmod(np.unique(codes), width))
