"""Columns of requests: checked within their bounds, with catalogue indices for item ids."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_jobs.data.examples import Array
from ray_jobs.recommenders.bounds import numbers, rows
from schemas.columns import PAD, ExampleColumn, requested
from schemas.errors import DataError


def in_catalogue(columns: Mapping[str, Any], index: Mapping[str, int], count: int) -> dict[str, Sequence[Any] | Array]:
    """What requests bring as `ray_jobs.data.batches.make_batch` takes it.

    An item id that the catalogue lacks is skipped, with what belongs to it in the other columns of its axis. What no
    request brings, and has no value of its own then, is left out.

    Args:
        columns: by column a value or a row of values for each request; None as if it were not there.
        index: of each item id.
        count: of requests.

    Raises:
        DataError: a column has another number of values, a value is of the wrong kind or out of its bounds, or the
            columns of one axis do not fit each other.
    """
    found: dict[str, Sequence[Any] | Array] = {}
    leaders: dict[str, str] = {}
    places: dict[str, Any] = {}
    if unknown := sorted(set(columns) - {column.name for column, _ in requested()}):
        raise TypeError(f"no request brings a column {unknown[0]!r}, see schemas.columns")
    for column, _ in requested():
        name = column.name
        given = columns.get(name)
        if given is None:
            value = column.missing() if column.batched else None
            if value is None:
                continue
            given = [value] * count
        if not column.along:
            found[name] = _plain(column, given, index, count)
            continue
        rows(given, name, object)
        _one_each(name, given, count)
        leader = leaders.setdefault(column.along, name)
        label = name if leader == name else f"{name} of {leader}"
        read = [_along(column, row, f"{label} {n}", index) for n, row in enumerate(given)]
        if leader == name:
            places[column.along] = [row != PAD for row in read] if column.kind == "item" else [slice(None)] * count
        elif [len(row) for row in read] != [len(row) for row in columns[leader]]:
            raise DataError(f"{name} do not fit {leader}: give one for each value of it, in each request")
        found[name] = [row[kept] for row, kept in zip(read, places[column.along], strict=True)]
    return found


def _along(column: ExampleColumn, row: Any, label: str, index: Mapping[str, int]) -> Array:
    if column.kind != "item":
        return numbers(column, row, label)
    rows(row, label, str)
    return np.array([index.get(item, PAD) for item in row], dtype=np.int64)


def _plain(column: ExampleColumn, given: Any, index: Mapping[str, int], count: int) -> Sequence[Any] | Array:
    found: Sequence[Any] | Array
    if column.kind in ("text", "item"):
        rows(given, column.name, str, none=True)
        found = [text or "" for text in given] if column.kind == "text" else [index.get(item, PAD) for item in given]
    else:
        found = numbers(column, given, column.name)
    _one_each(column.name, found, count)
    return found


def _one_each(name: str, values: Sequence[Any] | Array, count: int) -> None:
    if len(values) != count:
        raise DataError(f"{count} histories came with {len(values)} {name}; give one for each")
