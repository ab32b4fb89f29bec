"""Tables whose partitions hold only what changed: the partitions that make up what was known on a day.

The rows of such a table belong to owners (`Table.changes_by`), such as users. A *full* partition has the rows of all of
them. Any other has all rows of those owners whose rows differ from the day before, and ``since`` names the newest full
partition before it. A partition is full, with ``since`` null, on the first day, when an owner has gone, when most
owners have changed, and after some weeks, so that readers never need many partitions. A day without any change repeats
the rows of one owner, so that every day has a partition.

The state of a day is each owner's rows in the newest partition that has them, from ``since`` to the day.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from schemas.table import SINCE, Table

if TYPE_CHECKING:  # it loads pandas
    import pyarrow.dataset as ds

_DAY = "partition_date"


def days_of(partitions: Iterable[Mapping[str, str]]) -> list[dt.date]:
    """The days that have rows, from the partitions of a Delta table."""
    return sorted({dt.date.fromisoformat(one[_DAY]) for one in partitions})


def first_partition(rows: "ds.Dataset", table: Table, day: dt.date) -> dt.date:
    """The first of the partitions that make up the state of `day`, of which it is the last.

    Args:
        rows: of the table; a table of an earlier release may lack the column ``since``.
    """
    first = day
    while table.changes_by and SINCE.name in rows.schema.names:
        found = rows.head(1, columns=[SINCE.name], filter=pc.field(_DAY) == pa.scalar(first))
        earlier = found[SINCE.name][0].as_py() if found.num_rows else None
        if earlier is None:
            break
        first = earlier
    return first


def within(first: dt.date, day: dt.date) -> pc.Expression:
    """The condition for rows of the partitions from `first` to `day`."""
    return (pc.field(_DAY) >= pa.scalar(first)) & (pc.field(_DAY) <= pa.scalar(day))
