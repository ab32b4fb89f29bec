"""Suggests replacements for suspect positions: catalogue items that co-occur with the rest of the history."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf


def suggest_replacements(sequences: DataFrame, suspects: DataFrame, most: int = 1) -> DataFrame:
    """For every suspect position the items that co-occur most with the user's other items.

    An item's weight is the number of pairs (other item of the user, other user who has both), divided by the square
    root of the item's number of users; ties go to the smaller item id. The user's own items are excluded. Only
    positions before the validation target count, for all users.

    Args:
        suspects: user_id, position.
        most: candidates per position.

    Returns:
        user_id, position, replacement, rank (from 1); no row where no item co-occurs.
    """
    events = (
        sequences.select(
            "user_id",
            sf.coalesce("valid_position", "length").alias("_end"),
            sf.posexplode("item_ids").alias("position", "item_id"),
        )
        .where(sf.col("position") < sf.col("_end"))
        .select("user_id", "position", "item_id")
    )
    held = events.select("user_id", "item_id").distinct()
    doubted = suspects.join(events, ["user_id", "position"]).withColumnRenamed("item_id", "doubted")
    rest = (
        doubted.join(held, "user_id")
        .where(sf.col("item_id") != sf.col("doubted"))
        .select("user_id", "position", "item_id")
    )
    others = held.select(sf.col("user_id").alias("other"), "item_id")
    companions = held.select(sf.col("user_id").alias("other"), sf.col("item_id").alias("replacement"))
    owned = held.withColumnRenamed("item_id", "replacement")
    popularity = held.groupBy(sf.col("item_id").alias("replacement")).agg(sf.count(sf.lit(1)).alias("users"))
    weights = (
        rest.join(others, "item_id")
        .where(sf.col("other") != sf.col("user_id"))
        .join(companions, "other")
        .join(owned, ["user_id", "replacement"], "left_anti")
        .groupBy("user_id", "position", "replacement")
        .agg(sf.count(sf.lit(1)).alias("together"))
        .join(popularity, "replacement")
        .withColumn("weight", sf.col("together") / sf.sqrt("users"))
    )
    best = Window.partitionBy("user_id", "position").orderBy(sf.desc("weight"), "replacement")
    return (
        weights.withColumn("rank", sf.row_number().over(best))
        .where(sf.col("rank") <= most)
        .select("user_id", "position", "replacement", "rank")
    )


def best_by_likelihood(ranked: DataFrame, gained: DataFrame) -> DataFrame:
    """For each position the candidate that the rest of the history makes most likely.

    A candidate without a likelihood comes last; ties go to the better rank.

    Args:
        ranked: as returned by `suggest_replacements`.
        gained: the same rows with gain in nats per token.

    Returns:
        user_id, position, replacement.
    """
    key = ["user_id", "position", "replacement"]
    gain = sf.coalesce("gain", sf.lit(float("-inf")))
    best = Window.partitionBy("user_id", "position").orderBy(sf.desc(gain), "rank")
    return (
        ranked.join(gained.select(*key, "gain"), key, "left")
        .withColumn("_best", sf.row_number().over(best))
        .where("_best = 1")
        .select(*key)
    )
