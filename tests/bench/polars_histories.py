"""The histories of landed reviews by Polars in one process, the peer of `bench_sequences`.

``python -m tests.bench.polars_histories OUT REVIEWS ITEMS DAY...`` reads a review file per day, de-duplicates as
`ingest` does (within a day the longest text, then the first line; of several days the newest), keeps the k-core, cuts
by time and writes the rows of the table sequences, apart from the columns that say nothing about the histories.
"""

import sys

import polars as pl

CORE = 5
QUANTILES = (0.8, 0.9)
LINE = {"user_id": pl.String, "parent_asin": pl.String, "rating": pl.Float32, "timestamp": pl.Int64, "text": pl.String}
KEY = ("user_id", "item_id", "at")


def landed(file: str, day: int) -> pl.LazyFrame:
    """The lines of a day."""
    return pl.scan_ndjson(file, schema=LINE, row_index_name="line").select(
        "user_id",
        pl.col("parent_asin").alias("item_id"),
        (pl.col("timestamp") * 1000).alias("at"),
        "rating",
        pl.col("text").str.len_chars().alias("size"),
        "line",
        pl.lit(day).alias("day"),
    )


def k_core(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose pairs stay."""
    codes = rows.select("user_id", "item_id", *(pl.col(c).rank("dense").alias(c[0]) for c in KEY[:2]))
    pairs = codes.unique(["u", "i"])
    while True:
        kept = pairs.filter((pl.len().over("u") >= CORE) & (pl.len().over("i") >= CORE))
        if kept.height == pairs.height:
            return rows.join(pairs, on=["user_id", "item_id"], how="semi")
        pairs = kept


def histories(reviews: list[str], items: str) -> pl.DataFrame:
    """One ordered history per user."""
    known = pl.scan_ndjson(items, schema={"parent_asin": pl.String}).select(pl.col("parent_asin").alias("item_id"))
    days = pl.concat([landed(file, day) for day, file in enumerate(reviews)])
    rows = days.join(known, on="item_id", how="semi").collect()
    rows = rows.sort("day", "size", "line", descending=[True, True, False])
    rows = k_core(rows.unique(KEY, keep="first", maintain_order=True).drop("size", "line", "day"))
    valid, test = (rows["at"].quantile(share, "linear") for share in QUANTILES)
    return (
        rows.sort(KEY[0], KEY[2], KEY[1])
        .with_columns((pl.col("at") == pl.col("at").shift(1).over("user_id")).fill_null(False).alias("tied"))
        .group_by("user_id", maintain_order=True)
        .agg(
            pl.col("item_id").alias("item_ids"),
            pl.col("at").alias("occurred_at"),
            pl.col("rating").alias("ratings"),
            pl.col("tied").alias("tied_with_previous"),
            pl.len().cast(pl.Int32).alias("length"),
            (pl.col("at") < valid).sum().cast(pl.Int32).alias("time_valid_start"),
            (pl.col("at") < test).sum().cast(pl.Int32).alias("time_test_start"),
        )
    )


def main() -> None:
    """Write the histories of the command line."""
    out, items, *reviews = sys.argv[1:]
    histories(reviews, items).write_parquet(out)


if __name__ == "__main__":
    main()
