"""Histories with the denoiser's corrections."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.data.rows import IntArray, Rows, flat, lists_of, offsets_of
from ray_jobs.data.ties import Moved, with_values
from schemas.columns import sources
from schemas.errors import DataError

_FEWEST_LEFT = 2


def replace_suspects(sequences: pa.Table, denoised: pa.Table) -> pa.Table:
    """`sequences` with every suspect item that has a replacement replaced.

    Args:
        sequences: rows of the table of that name, one partition.
        denoised: rows of the table denoised_sequences of the same partition.

    Raises:
        DataError: the two tables have different histories.
    """
    found = _beside(sequences, denoised)
    items, others = flat(sequences["item_ids"]), flat(found["replacements"]).flatten()
    suspect = flat(found["suspect"]).flatten()
    values = pc.if_else(pc.and_(suspect, pc.is_valid(others)), others, items.flatten())
    return with_values(sequences, {"item_ids": lists_of(offsets_of(items.value_lengths().to_numpy()), values)})


def remove_suspects(sequences: pa.Table, denoised: pa.Table) -> tuple[pa.Table, Moved]:
    """`sequences` without suspect items, and where the positions are now.

    A history with fewer than two remaining items before the validation target is kept.

    Returns:
        The columns user_id, those that examples are read from, and the moved valid_position and test_position; and the
        new positions, as `ties.move_preferences` takes them.

    Raises:
        DataError: as `replace_suspects`.
    """
    gone = flat(_beside(sequences, denoised)["suspect"]).flatten().to_numpy(zero_copy_only=False)
    lengths = flat(sequences["item_ids"]).value_lengths().to_numpy()
    offsets = offsets_of(lengths)
    before = _before(gone)
    ends = pc.coalesce(flat(sequences["valid_position"]), pa.array(lengths)).to_numpy()
    left = ends - (before[offsets[1:]] - before[offsets[:-1]])
    gone = gone & ~np.repeat(left < _FEWEST_LEFT, lengths)
    before = _before(gone)
    starts = before[offsets[:-1]]
    kept = {}
    for name in sources():
        values = flat(sequences[name]).flatten().filter(pa.array(~gone))
        kept[name] = lists_of(offsets - before[offsets], values)
    for name in ("valid_position", "test_position"):
        old = flat(sequences[name])
        missing = pc.is_null(old).to_numpy(zero_copy_only=False)
        at = old.fill_null(0).to_numpy()
        kept[name] = pa.array(at - (before[offsets[:-1] + at] - starts), mask=missing)
    histories = sequences.select(["user_id", *sources(), "valid_position", "test_position"])
    new = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) - (before[1:] - np.repeat(starts, lengths))
    return with_values(histories, kept), Moved(flat(sequences["user_id"]), Rows(new, offsets))


def _before(flags: npt.NDArray[np.bool_]) -> IntArray:
    """How many of `flags` lie before each place, int64[N + 1]."""
    return offsets_of(flags.astype(np.int64))


def _beside(sequences: pa.Table, denoised: pa.Table) -> pa.Table:
    """The rows of `denoised` in the order of `sequences`."""
    users, ids = flat(sequences["user_id"]), flat(sequences["item_ids"])
    rows = pc.index_in(users, flat(denoised["user_id"]))
    # A user without a row is compared with another one's history only after this check.
    missing = pc.is_null(rows).to_numpy(zero_copy_only=False)
    found = denoised.take(rows.fill_null(0))
    theirs = flat(found["item_ids"])
    wrong = missing | (theirs.value_lengths().to_numpy() != ids.value_lengths().to_numpy())
    if not wrong.any():
        unlike = pc.not_equal(theirs.flatten(), ids.flatten()).to_numpy(zero_copy_only=False)
        wrong[pc.list_parent_indices(ids).to_numpy()[unlike]] = True
    if wrong.any():
        raise DataError(
            "table denoised_sequences does not fit the histories of table sequences (user "
            f"{users[int(np.flatnonzero(wrong)[0])].as_py()!r}): run the stage denoised_sequences on this partition "
            "again, or set training_data.corrections to none"
        )
    return found
