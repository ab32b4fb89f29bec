"""Who is recommended to: full histories and what is known of each user's preferences."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from infra.settings import Settings
from ray_jobs.data.tables import input_partition, input_table, table_exists
from schemas.columns import HISTORY, requested, sources
from schemas.preferences import join_preferences
from schemas.stage_request import StageRequest


@dataclass(frozen=True)
class User:
    """One user as a model is asked about them.

    Args:
        history: every item of the sequence, oldest first.
        preference: the newest preferences as one sentence, else the newest summary of the reviews, or None.
        times: seconds since 1970 of the history's items.
        asked_at: the second that the recommendation is for.
        more: a value for each item of the history, by other columns of `schemas.columns` that requests bring.
    """

    user_id: str
    history: list[str]
    preference: str | None
    times: list[int]
    asked_at: int
    more: Mapping[str, list[Any]] = field(default_factory=dict)


def user_columns(readers: Sequence[User]) -> dict[str, Any]:
    """What `Bundle.recommend` is told of `readers` beside their histories."""
    return {
        "known": [reader.preference for reader in readers],
        "times": [reader.times for reader in readers],
        "asked_at": [reader.asked_at for reader in readers],
        **{name: [reader.more[name] for reader in readers] for name in (readers[0].more if readers else ())},
    }


def users_of(
    sequences: pa.Table, preferences: pa.Table | None, day: dt.date, summaries: pa.Table | None = None
) -> list[User]:
    """Every user of `sequences`, sorted by id, asked about as `day` ends (UTC).

    The preference is that of the last position with any, joined as in evaluation; positions beyond the sequence
    (of a partition that is newer) do not count. Of a user without any, the newest of the `summaries` is taken.
    """
    newest: dict[str, tuple[int, list[str]]] = {}
    lengths = dict(zip(sequences.column("user_id").to_pylist(), sequences.column("length").to_pylist(), strict=True))
    for row in [] if preferences is None else preferences.to_pylist():
        user, position = row["user_id"], row["position"]
        if row["status"] == "ok" and position < lengths.get(user, 0) and position >= newest.get(user, (-1, []))[0]:
            newest[user] = (position, row["preferences"])
    told: dict[str, str] = {}
    for row in [] if summaries is None else sorted(summaries.to_pylist(), key=lambda row: row["as_of"]):
        if row["status"] == "ok":
            told[row["user_id"]] = row["summary"]
    rows = sequences.select(["user_id", *sources()]).to_pylist()
    ends = int(dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC).timestamp())
    return [
        User(
            user_id=row["user_id"],
            history=row["item_ids"],
            preference=join_preferences(newest.get(row["user_id"], (0, []))[1]) or told.get(row["user_id"]),
            times=[int(moment.timestamp()) for moment in row["occurred_at"]],
            asked_at=ends,
            more={
                column.name: row[column.source]
                for column, _ in requested()
                if column.along == HISTORY and column.name not in (HISTORY, "times")
            },
        )
        for row in sorted(rows, key=lambda row: row["user_id"])
    ]


def read_users(settings: Settings, request: StageRequest) -> list[User]:
    """`users_of` of the request's partition; a data set that never had preferences or summaries has none."""
    sequences = input_partition(settings, request, "sequences", ["user_id", "length", *sources()])
    day = [("partition_date", "=", request.partition_date())]
    known = {
        name: input_table(settings, request, name, filters=day)
        for name in ("preferences", "review_summaries")
        if name in request.inputs or table_exists(settings.table_uri(request.dataset, name))
    }
    return users_of(sequences, known.get("preferences"), request.partition_date(), known.get("review_summaries"))
