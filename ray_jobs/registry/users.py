"""The users to score: their full histories and known preferences."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from infra.settings import Settings
from ray_jobs.data.day_states import input_parts, input_rows
from schemas.columns import HISTORY, requested, sources
from schemas.preferences import join_preferences
from schemas.stage_request import StageRequest

USERS_AT_ONCE = 32_768
"""Users in the memory of a process that goes through all."""


@dataclass(frozen=True)
class User:
    """The input of a model for one user.

    Args:
        history: every item of the sequence, oldest first.
        preference: the newest preferences as one sentence, else the newest summary of the reviews, or None.
        times: of the history's items, in seconds since 1970.
        asked_at: time of the recommendation, in seconds since 1970.
        more: other columns of `schemas.columns` that requests have, a value for each item of the history.
    """

    user_id: str
    history: list[str]
    preference: str | None
    times: list[int]
    asked_at: int
    more: Mapping[str, list[Any]] = field(default_factory=dict)


def user_columns(users: Sequence[User]) -> dict[str, Any]:
    """The arguments of `Bundle.recommend` other than histories, for `users`."""
    return {
        "known": [user.preference for user in users],
        "times": [user.times for user in users],
        "asked_at": [user.asked_at for user in users],
        **{name: [user.more[name] for user in users] for name in (users[0].more if users else ())},
    }


def users_of(
    sequences: pa.Table, preferences: pa.Table | None, day: dt.date, summaries: pa.Table | None = None
) -> list[User]:
    """Every user of `sequences`, sorted by id, at the end of `day` (UTC).

    The preference is that of the last position with any, as in evaluation, else the newest of the `summaries`.
    Positions beyond the sequence, from a newer partition, are ignored.
    """
    newest: dict[str, tuple[int, list[str]]] = {}
    lengths = dict(zip(sequences.column("user_id").to_pylist(), sequences.column("length").to_pylist(), strict=True))
    for row in [] if preferences is None else preferences.to_pylist():
        user, position = row["user_id"], row["position"]
        if row["status"] == "ok" and position < lengths.get(user, 0) and position >= newest.get(user, (-1, []))[0]:
            newest[user] = (position, row["preferences"])
    summed: dict[str, str] = {}
    for row in [] if summaries is None else sorted(summaries.to_pylist(), key=lambda row: row["as_of"]):
        if row["status"] == "ok":
            summed[row["user_id"]] = row["summary"]
    ends = int(dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC).timestamp())
    own = [c for c, _ in requested() if c.along == HISTORY and c.source and c.name not in (HISTORY, "times")]
    return [
        User(
            user_id=row["user_id"],
            history=row["item_ids"],
            preference=join_preferences(newest.get(row["user_id"], (0, []))[1]) or summed.get(row["user_id"]),
            times=[int(moment.timestamp()) for moment in row["occurred_at"]],
            asked_at=ends,
            more={column.name: row[column.source] for column in own},
        )
        for row in sequences.select(["user_id", *sources()]).sort_by("user_id").to_pylist()
    ]


def user_parts(settings: Settings, request: StageRequest, users_at_once: int) -> Iterator[list[User]]:
    """`users_of` the request's partition, some at a time; preferences and summaries are optional."""
    columns = ["user_id", "length", *sources()]
    others = {
        "preferences": ["user_id", "position", "preferences", "status"],
        "review_summaries": ["user_id", "as_of", "summary", "status"],
    }
    for part in input_parts(settings, request, "sequences", "user_id", columns, others, users_at_once):
        known, summaries = part.get("preferences"), part.get("review_summaries")
        yield users_of(part["sequences"], known, request.partition_date(), summaries)


@dataclass(frozen=True)
class Audience:
    """The users of a partition: their numbers, and some of them.

    Args:
        sample: evenly spread over all, in their order.
        first_told: the first user with a preference, else the first user.
    """

    users: int
    with_preference: int
    sample: tuple[User, ...]
    first_told: User


def read_audience(settings: Settings, request: StageRequest, sample: int) -> Audience:
    """The users of the request's partition, and `sample` of them, or all if there are fewer."""
    total = input_rows(settings, request, "sequences")
    places = np.unique(np.linspace(0, total - 1, sample).astype(int))
    first, told, number, chosen = None, 0, 0, []
    for part in user_parts(settings, request, USERS_AT_ONCE):
        chosen += [part[place - number] for place in places if number <= place < number + len(part)]
        number += len(part)
        with_preference = [user for user in part if user.preference is not None]
        told += len(with_preference)
        if first is None or (first.preference is None and with_preference):
            first = (with_preference or part)[0]
    assert first is not None, "input_parts refuses a day without rows"
    return Audience(total, told, tuple(chosen), first)
