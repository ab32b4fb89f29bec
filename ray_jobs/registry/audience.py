"""Who is recommended to: full histories and the newest preferences of each user."""

from dataclasses import dataclass

import pyarrow as pa

from infra.settings import Settings
from ray_jobs.data.histories import join_preferences
from ray_jobs.data.tables import input_partition, input_table, table_exists
from schemas.stage_request import StageRequest


@dataclass(frozen=True)
class Reader:
    """One user as a model is asked about them.

    Args:
        history: every item of the sequence, oldest first.
        preference: the newest preferences as one sentence, or None.
    """

    user_id: str
    history: list[str]
    preference: str | None


def read_audience(sequences: pa.Table, preferences: pa.Table | None) -> list[Reader]:
    """Every user of `sequences`, sorted by id.

    The preference is that of the last position with any, joined as in evaluation; positions beyond the sequence
    (of a partition that is newer) do not count.
    """
    newest: dict[str, tuple[int, list[str]]] = {}
    lengths = dict(zip(sequences.column("user_id").to_pylist(), sequences.column("length").to_pylist(), strict=True))
    for row in [] if preferences is None else preferences.to_pylist():
        user, position = row["user_id"], row["position"]
        if row["status"] == "ok" and position < lengths.get(user, 0) and position >= newest.get(user, (-1, []))[0]:
            newest[user] = (position, row["preferences"])
    rows = sequences.select(["user_id", "item_ids"]).to_pylist()
    return [
        Reader(row["user_id"], row["item_ids"], join_preferences(newest.get(row["user_id"], (0, []))[1]) or None)
        for row in sorted(rows, key=lambda row: row["user_id"])
    ]


def audience_of(settings: Settings, request: StageRequest) -> list[Reader]:
    """`read_audience` of the request's partition; a data set that never had preferences has none."""
    sequences = input_partition(settings, request, "sequences", ["user_id", "item_ids", "length"])
    preferences = None
    if "preferences" in request.inputs or table_exists(settings.table_uri(request.dataset, "preferences")):
        day = [("partition_date", "=", request.partition_date())]
        preferences = input_table(settings, request, "preferences", filters=day)
    return read_audience(sequences, preferences)
