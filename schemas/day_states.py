"""Tables whose partitions hold only what changed: the partitions that make up what was known on a day.

Such a table (`Table.changes_by`) is written like this: the first partition holds everybody. A later one holds all rows
of those whose rows differ from the state before, and names in ``since`` the partition that holds everybody. It holds
everybody itself, with ``since`` null, where somebody is gone, where most have changed, or after some weeks, so that a
reader never needs many partitions. A day without any change repeats the rows of one owner, so that there is a
partition for every day.

The state of a day is, of each owner, the rows of the newest partition from ``since`` to the day.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc


def days_of(partitions: Iterable[Mapping[str, str]]) -> list[dt.date]:
    """The days that have rows, from the partitions of a Delta table."""
    return sorted({dt.date.fromisoformat(one["partition_date"]) for one in partitions})


def span(days: Iterable[dt.date], day: dt.date, since: Callable[[dt.date], dt.date | None]) -> tuple[dt.date, dt.date]:
    """First and last of the partitions that make up the state of `day`; both are `day` if there is none up to it.

    Args:
        days: those that have rows.
        since: what the rows of a day name.
    """
    first = last = max((one for one in days if one <= day), default=day)
    while (earlier := since(first)) is not None:
        first = earlier
    return first, last


def within(first: dt.date, last: dt.date) -> pc.Expression:
    """The condition for rows of the partitions from `first` to `last`."""
    return (pc.field("partition_date") >= pa.scalar(first)) & (pc.field("partition_date") <= pa.scalar(last))
