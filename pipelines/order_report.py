"""How far the order of histories can be trusted: ties, and traces of item identifiers in it.

With times of a day's resolution much of a history is tied, and the order within a tie is that of the tie rule, not of
the user. A file sorted by item identifier leaves ascending identifiers, which a model can learn instead of taste.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from infra import storage
from pipelines.gates import data_docs
from pipelines.interactions import CoreSize
from pipelines.pages.render import write_page

_LARGEST_FACTORIAL = 20


@dataclass(frozen=True, kw_only=True)
class OrderReport:
    """Shares from 0 to 1; a consecutive pair is two neighbouring positions of one history.

    Args:
        tie_share: consecutive pairs of the same time.
        users_with_ties_share: users with at least one such pair.
        valid_test_tied_share: users with a leave-one-out split whose validation and test item have the same time, so
            that the tie rule chose which is which.
        ascending_share: consecutive pairs of different items whose identifiers ascend as strings; 0.5 by chance.
        ascending_tied_share: the same among tied pairs.
        ascending_histories_share: histories of two or more positions that ascend throughout.
        ascending_histories_expected: the same by chance, the mean of 1 / length!.
    """

    users: int
    pairs: int
    tie_share: float
    users_with_ties_share: float
    valid_test_tied_share: float
    ascending_share: float
    ascending_tied_share: float
    ascending_histories_share: float
    ascending_histories_expected: float

    def counts(self) -> dict[str, float]:
        """The shares by name, ``order.<name>``, for a stage's report."""
        return {f"order.{name}": round(value, 6) for name, value in asdict(self).items()}


def order_report(histories: DataFrame) -> OrderReport:
    """Measure the order of rows of the table sequences."""
    items, tied, length = sf.col("item_ids"), sf.col("tied_with_previous"), sf.col("length")
    steps = sf.when(length > 1, sf.sequence(sf.lit(1), length - 1)).otherwise(sf.array().cast("array<int>"))
    per_user = histories.select(
        length,
        (length - 1).alias("pairs"),
        _count(steps, lambda i: sf.get(tied, i)).alias("tied"),
        _count(steps, lambda i: sf.get(items, i) != sf.get(items, i - 1)).alias("moves"),
        _count(steps, lambda i: sf.get(items, i) > sf.get(items, i - 1)).alias("ascents"),
        _count(steps, lambda i: sf.get(tied, i) & (sf.get(items, i) != sf.get(items, i - 1))).alias("tied_moves"),
        _count(steps, lambda i: sf.get(tied, i) & (sf.get(items, i) > sf.get(items, i - 1))).alias("tied_ascents"),
        sf.get(tied, sf.col("test_position")).cast("int").alias("test_tied"),
    )
    long = sf.col("length") > 1
    chance = sf.when(length <= _LARGEST_FACTORIAL, 1 / sf.factorial("length")).otherwise(sf.lit(0.0))
    row = per_user.agg(
        sf.count(sf.lit(1)).alias("users"),
        sf.sum("pairs").alias("pairs"),
        _share(sf.sum("tied"), sf.sum("pairs")).alias("tie_share"),
        sf.avg((sf.col("tied") > 0).cast("int")).alias("users_with_ties_share"),
        sf.coalesce(sf.avg("test_tied"), sf.lit(0.0)).alias("valid_test_tied_share"),
        _share(sf.sum("ascents"), sf.sum("moves")).alias("ascending_share"),
        _share(sf.sum("tied_ascents"), sf.sum("tied_moves")).alias("ascending_tied_share"),
        _mean(sf.when(long, (sf.col("ascents") == sf.col("pairs")).cast("int"))).alias("ascending_histories_share"),
        _mean(sf.when(long, chance)).alias("ascending_histories_expected"),
    ).first()
    assert row is not None
    return OrderReport(**row.asDict())


def write_order_report(
    docs_dir: str, partition: str, report: OrderReport, tie_rule: str, sizes: Sequence[CoreSize]
) -> str:
    """Write the report as a page and as JSON beside the data docs, and return the page's address."""
    name = storage.join(docs_dir, "reports", f"order_of_histories--{partition}")
    page = f"{name}.html"
    write_page(page, "order.html", partition=partition, report=report, tie_rule=tie_rule, sizes=sizes)
    record = {"partition": partition, "tie_rule": tie_rule, **asdict(report), "k_core": [asdict(s) for s in sizes]}
    storage.write_json(f"{name}.json", record)
    data_docs.write_index(docs_dir)
    return page


def _count(steps: Column, holds: Callable[[Column], Column]) -> Column:
    return sf.size(sf.filter(steps, holds))


def _share(part: Column, whole: Column) -> Column:
    return sf.coalesce(sf.try_divide(part, whole), sf.lit(0.0))


def _mean(values: Column) -> Column:
    return sf.coalesce(sf.avg(values), sf.lit(0.0))
