import pyarrow as pa
import pytest

from ray_jobs.data.corrections import remove_suspects, replace_suspects
from ray_jobs.data.rows import Rows
from ray_jobs.data.ties import Moved, move_preferences
from schemas.errors import DataError

SEQUENCES = pa.table(
    {
        "user_id": ["u", "v"],
        "item_ids": [["a", "b", "c", "d", "t"], ["d", "e", "f"]],
        "occurred_at": [[1, 2, 3, 4, 5], [1, 2, 3]],
        "valid_position": pa.array([4, 1], pa.int32()),
        "test_position": pa.array([None, 2], pa.int32()),
        "length": [5, 3],
    }
)


def denoised(items=("a", "b", "c", "d", "t"), replacements=(None, "x", None, None, None)):
    return pa.table(
        {
            "user_id": ["v", "u"],
            "item_ids": [["d", "e", "f"], list(items)],
            "suspect": [[True, False, False], [False, True, True, False, False]],
            "replacements": pa.array([[None] * 3, list(replacements)], pa.list_(pa.string())),
        }
    )


def test_suspects_with_a_replacement_are_replaced_and_nothing_else():
    found = replace_suspects(SEQUENCES, denoised())
    assert found["item_ids"].to_pylist() == [["a", "x", "c", "d", "t"], ["d", "e", "f"]]
    assert found.drop(["item_ids"]) == SEQUENCES.drop(["item_ids"])
    assert found.schema == SEQUENCES.schema


def test_removed_suspects_leave_targets_where_their_items_are():
    found, known_at = remove_suspects(SEQUENCES, denoised())
    rows = found.to_pylist()
    assert rows[0] == {
        "user_id": "u",
        "item_ids": ["a", "d", "t"],
        "occurred_at": [1, 4, 5],
        "valid_position": 2,
        "test_position": None,
    }
    # Nothing would be left to learn from.
    assert rows[1] == {
        "user_id": "v",
        "item_ids": ["d", "e", "f"],
        "occurred_at": [1, 2, 3],
        "valid_position": 1,
        "test_position": 2,
    }
    assert known_at.users.to_pylist() == ["u", "v"]
    assert list(map(list, known_at.positions)) == [[0, 0, 0, 1, 2], [0, 1, 2]]


def test_preferences_move_with_their_positions():
    known = pa.table(
        {"user_id": ["u"] * 5 + ["w"], "position": [4, 3, 2, 1, 0, 0], "preferences": [[one] for one in "edcbaz"]}
    )
    moved = move_preferences(known, Moved(pa.array(["u", "w"]), Rows.of([[0, 0, 0, 1, 2], [0]])))
    assert [tuple(row.values()) for row in moved.to_pylist()] == [
        *[("u", 0, ["c"]), ("u", 1, ["d"]), ("u", 2, ["e"])],
        ("w", 0, ["z"]),
    ]
    gone = move_preferences(known, Moved(pa.array(["u", "w"]), Rows.of([[-1, 0, 1, 2, 3], [-1]])))
    assert next(tuple(row.values()) for row in gone.to_pylist()) == ("u", 0, ["b"])
    assert gone.num_rows == 4


def test_other_histories_are_refused():
    with pytest.raises(DataError, match=r"does not fit.*'u'.*corrections to none"):
        replace_suspects(SEQUENCES, denoised(items=("a", "b", "other", "d", "t")))
