"""Review texts at the positions of histories."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from ray_jobs.data.day_states import input_partition
from ray_jobs.data.tables import input_table
from schemas.review_texts import review_text
from schemas.reviews import REVIEWS
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

_EVENT = ["user_id", "item_id", "occurred_at"]


def reviewed_positions(settings: Settings, request: StageRequest, max_words: int) -> pa.Table:
    """The positions of the day's histories with a review text, by user and position.

    A position's review has the same user, item and time; of repeated deliveries up to the request's day the newest
    counts, as in the language stages.

    Args:
        max_words: maximum length of a text.

    Returns:
        user_id, position, item_id, rating, text (see `review_text`; never empty).

    Raises:
        DataError: a table is missing, or the day has no histories.
    """
    sequences = input_partition(settings, request, SEQUENCES.name, ["user_id", "item_ids", "occurred_at", "ratings"])
    reviews = input_table(
        settings,
        request,
        REVIEWS.name,
        ["user_id", "item_id", "reviewed_at", "title", "text", "partition_date", "source_line"],
        pc.field("partition_date") <= request.partition_date(),
    ).rename_columns([*_EVENT, "title", "text", "partition_date", "source_line"])
    found = _positions(sequences).join(_newest(reviews), _EVENT, join_type="inner")
    texts = [
        review_text(title, text, max_words)
        for title, text in zip(found["title"].to_pylist(), found["text"].to_pylist(), strict=True)
    ]
    found = found.select(["user_id", "position", "item_id", "rating"]).append_column(
        "text", pa.array(texts, pa.string())
    )
    return found.filter(pc.not_equal(found["text"], "")).sort_by([("user_id", "ascending"), ("position", "ascending")])


def _positions(sequences: pa.Table) -> pa.Table:
    """One row per position: user_id, position, item_id, occurred_at, rating."""
    sequences = sequences.combine_chunks()
    lengths = pc.list_value_length(sequences["item_ids"]).to_numpy()
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pa.table(
        {
            "user_id": sequences["user_id"].take(pa.array(np.repeat(np.arange(len(lengths)), lengths))),
            "position": pa.array(np.arange(lengths.sum()) - starts, pa.int32()),
            "item_id": pc.list_flatten(sequences["item_ids"]),
            "occurred_at": pc.list_flatten(sequences["occurred_at"]),
            "rating": pc.list_flatten(sequences["ratings"]),
        }
    )


def _newest(reviews: pa.Table) -> pa.Table:
    """The newest delivery of each event."""
    order = [*((name, "ascending") for name in _EVENT), ("partition_date", "descending"), ("source_line", "descending")]
    reviews = reviews.sort_by(order).combine_chunks()
    first = np.ones(reviews.num_rows, bool)
    if reviews.num_rows > 1:
        same = [pc.equal(reviews[name][1:], reviews[name][:-1]).to_numpy() for name in _EVENT]
        first[1:] = ~np.logical_and.reduce(same)
    return reviews.filter(pa.array(first))
