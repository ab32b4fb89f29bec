"""Example users of a data set's newest day, and the categories of its items."""

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from ray_jobs.data.day_states import state_batches
from ray_jobs.data.tables import open_table, read_table, table_exists
from ray_jobs.registry.users import User, users_of
from schemas.columns import sources
from schemas.day_states import days_of
from schemas.delta import table_name
from schemas.errors import DataError
from schemas.tables import TABLES

MOST_ROWS = 200_000
"""Maximum number of rows read from a table."""
_PREFERENCES = ("user_id", "position", "preferences", "status")
_SUMMARIES = ("user_id", "as_of", "summary", "status")


def example_users(settings: Settings, dataset: str, count: int) -> list[User]:
    """At most `count` users of the newest day of the table ``sequences``, those with preferences first.

    Raises:
        DataError: there is no such table, or it is empty.
    """
    uri = settings.table_uri(dataset, "sequences")
    days = days_of(open_table(uri).partitions())
    if not days:
        raise DataError(f"table sequences of data set {dataset} is empty: run the stage 'sequences' first")
    day = max(days)
    newest = _newest_preferences(settings.table_uri(dataset, "preferences"), day)
    with_preferences = pa.array(sorted(newest), pa.string())
    first: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for batch in _batches(uri, day, ("user_id", "length", *sources())):
        known = pc.is_in(batch["user_id"], with_preferences)
        first += batch.filter(known).slice(0, count - len(first)).to_pylist()
        others += batch.filter(pc.invert(known)).slice(0, count - len(others)).to_pylist()
        if len(first) == count or (not newest and len(others) == count):
            break
    chosen = [*first, *others][:count]
    if not chosen:
        return []
    preferences = [newest[row["user_id"]] for row in chosen if row["user_id"] in newest]
    summaries = _summaries(settings.table_uri(dataset, "review_summaries"), day, [row["user_id"] for row in chosen])
    users = users_of(
        pa.Table.from_pylist(chosen), pa.Table.from_pylist(preferences) if preferences else None, day, summaries
    )
    return sorted(users, key=lambda user: (user.preference is None, user.user_id))


def item_categories(settings: Settings, dataset: str, item_ids: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    """For each category, the ascending indices into `item_ids` of its items."""
    rows = read_table(settings.table_uri(dataset, "items"), columns=["item_id", "categories"])
    names = pc.list_flatten(rows["categories"]).combine_chunks().dictionary_encode()
    parents = pc.list_parent_indices(rows["categories"]).combine_chunks()
    places = pc.index_in(rows["item_id"], pa.array(item_ids, pa.string())).combine_chunks().take(parents)
    there = pc.is_valid(places)
    codes, places = names.indices.filter(there).to_numpy(), places.filter(there).to_numpy()
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names.dictionary) + 1))
    return {
        name: np.unique(places[order[start:end]]).astype(np.int64)
        for name, (start, end) in zip(names.dictionary.to_pylist(), itertools.pairwise(starts.tolist()), strict=True)
    }


def _newest_preferences(uri: str, day: dt.date) -> dict[str, dict[str, Any]]:
    """The last row with preferences of each user; empty if there is no such table."""
    newest: dict[str, dict[str, Any]] = {}
    for batch in _batches(uri, day, _PREFERENCES) if table_exists(uri) else ():
        for row in batch.filter(pc.equal(batch["status"], "ok")).to_pylist():
            if row["position"] >= newest.get(row["user_id"], row)["position"]:
                newest[row["user_id"]] = row
    return newest


def _summaries(uri: str, day: dt.date, users: list[str]) -> pa.Table | None:
    """The summaries of the reviews of `users`; None if there is no such table."""
    if not table_exists(uri):
        return None
    wanted = pa.array(users, pa.string())
    found = [batch.filter(pc.is_in(batch["user_id"], wanted)) for batch in _batches(uri, day, _SUMMARIES)]
    return pa.Table.from_batches(found) if found else None


def _batches(uri: str, day: dt.date, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """What was known on a day, at most about `MOST_ROWS`."""
    seen = 0
    for batch in state_batches(open_table(uri), TABLES[table_name(uri)], day, [*columns]):
        yield batch
        seen += batch.num_rows
        if seen >= MOST_ROWS:
            return
