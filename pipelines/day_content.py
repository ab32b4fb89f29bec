"""A digest of all reviews, items and events as of a day; where it is unchanged, there is nothing to do."""

import datetime as dt
import hashlib
from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from schemas.events import EVENTS
from schemas.items import ITEMS
from schemas.reviews import REVIEWS
from schemas.table import Table

_PLACES = ("partition_date", "source_line", "source")


def day_content(reviews: DataFrame, items: DataFrame, day: dt.date, events: DataFrame | None = None) -> str:
    """Sixteen hex digits that identify what is known on `day`.

    Of a row that was delivered on several days the newest counts; file, line and day of its delivery do not. The sums
    of the rows' hashes do not depend on their order.
    """
    frames = [(reviews, REVIEWS), (items, ITEMS), *([] if events is None else [(events, EVENTS)])]
    sums = [_sum_of(frame, table, day) for frame, table in frames]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def _sum_of(rows: DataFrame, table: Table, day: dt.date) -> Sequence[str]:
    columns = [name for name in table.column_names() if name not in (*table.key, *_PLACES)]
    places = [name for name in _PLACES if name in table.column_names()]
    newest = (
        rows.where(sf.col("partition_date") <= sf.lit(day))
        .groupBy(*table.key)
        .agg(sf.max_by(sf.struct(*columns), sf.struct(*places)).alias("newest"))
    )
    hashes = [
        sf.xxhash64(sf.lit(seed), *(sf.col(name) for name in table.key), "newest").cast("decimal(20,0)")
        for seed in (0, 1)
    ]
    row = newest.agg(sf.count(sf.lit(1)), *(sf.sum(value) for value in hashes)).first()
    assert row is not None
    return [str(value) for value in row]
