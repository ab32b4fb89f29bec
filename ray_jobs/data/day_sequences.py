"""The day's sequences, with ties and held-out positions according to the settings of training data."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from ray_jobs.data.day_states import input_partition
from ray_jobs.data.histories import TRAINING_END
from ray_jobs.data.rows import IntArray, Rows, offsets_of
from ray_jobs.data.settings import training_data_settings
from ray_jobs.data.ties import Moved, shuffle_ties
from schemas.columns import sources
from schemas.errors import DataError
from schemas.stage_request import StageRequest

_POSITIONS = ("valid_position", "test_position", "time_valid_start", "time_test_start")


def input_sequences(settings: Settings, request: StageRequest) -> tuple[pa.Table, Moved | None]:
    """The day's sequences, and the new positions of `shuffle_ties` if ties were shuffled.

    Raises:
        DataError: the day has no sequences, or none that can be split as configured.
    """
    own = training_data_settings(settings, request)
    more = ["ratings", "tied_with_previous"] if own.ties == "shuffled" else []
    columns = [*dict.fromkeys(["user_id", "length", *_POSITIONS, *sources(), *more])]
    sequences = input_partition(settings, request, "sequences", columns)
    if own.split == "time":
        return split_by_time(sequences), None
    return (sequences, None) if own.ties == "as_is" else shuffle_ties(sequences, own.ties_seed)


def split_by_time(sequences: pa.Table) -> pa.Table:
    """`sequences` with held-out positions after the global cuts, and the column `TRAINING_END`.

    The validation target is a user's first item at or after the validation cut and before the test cut, the test target
    the first one at or after the test cut. There is at most one of each per user, as with the split by last items, so
    users remain the unit of confidence intervals and paired tests.

    Raises:
        DataError: no user has an item before the cuts and one after the test cut.
    """
    valid, test = sequences["time_valid_start"], sequences["time_test_start"]
    if not pc.any(pc.and_(pc.greater(valid, 0), pc.less(test, sequences["length"]))).as_py():
        raise DataError(
            "table sequences has no user with items both before the validation cut and after the test cut, so that "
            "nothing can be learned and judged by time: lower sequences.valid_quantile and sequences.test_quantile, "
            "or set training_data.split to last"
        )
    nowhere = pa.scalar(None, pa.int32())
    columns = {
        "valid_position": pc.if_else(pc.less(valid, test), valid, nowhere),
        "test_position": pc.if_else(pc.less(test, sequences["length"]), test, nowhere),
    }
    for name, values in columns.items():
        sequences = sequences.set_column(sequences.column_names.index(name), sequences.schema.field(name), values)
    return sequences.append_column(TRAINING_END, valid)


def training_ends(sequences: pa.Table) -> IntArray:
    """End of each row's training positions: the validation target, or the end of a history without one."""
    if TRAINING_END in sequences.column_names:
        return sequences[TRAINING_END].to_numpy().astype(np.int64)
    return pc.coalesce(sequences["valid_position"], sequences["length"]).to_numpy().astype(np.int64)


def training_rows(sequences: pa.Table, items: pa.Array) -> Rows:
    """Rows in `items` of each user's items at training positions, oldest first, users by id; other items left out."""
    sequences = sequences.sort_by("user_id")
    chunks = sequences["item_ids"].chunks
    places = [pc.index_in(chunk.flatten().cast(pa.string()), value_set=items).fill_null(-1) for chunk in chunks]
    found = Rows(np.concatenate(places), offsets_of(pc.list_value_length(sequences["item_ids"]).to_numpy()))
    ends = np.minimum(training_ends(sequences), found.lengths)
    trained = found.beginnings(ends)
    there = trained >= 0
    owners = np.repeat(np.arange(len(found)), ends)[there]
    return Rows(trained[there].astype(np.int64), offsets_of(np.bincount(owners, minlength=len(found))))
