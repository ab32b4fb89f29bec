import pyarrow as pa
import pytest

from ray_jobs.data.corrections import correct
from schemas.errors import DataError

SEQUENCES = pa.table({"user_id": ["u", "v"], "item_ids": [["a", "b", "c"], ["d"]], "length": [3, 1]})


def denoised(items, replacements):
    return pa.table(
        {
            "user_id": ["v", "u"],
            "item_ids": [["d"], items],
            "suspect": [[False], [False, True, True]],
            "replacements": pa.array([[None], replacements], pa.list_(pa.string())),
        }
    )


def test_suspects_with_a_replacement_are_replaced_and_nothing_else():
    found = correct(SEQUENCES, denoised(["a", "b", "c"], [None, "x", None]))
    assert found["item_ids"].to_pylist() == [["a", "x", "c"], ["d"]]
    assert found.drop(["item_ids"]) == SEQUENCES.drop(["item_ids"])
    assert found.schema == SEQUENCES.schema


def test_other_histories_are_refused():
    with pytest.raises(DataError, match=r"does not fit.*'u'.*corrections to false"):
        correct(SEQUENCES, denoised(["a", "b", "other"], [None, None, None]))
