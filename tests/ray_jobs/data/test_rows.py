import pickle

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.data.rows import Notes, Rows, Texts


def test_rows_are_those_that_were_given():
    given = [[1, 2], [], [3], [4, 5, 6]]
    rows = Rows.of(given)
    assert [row.tolist() for row in rows] == given
    assert rows[-1].tolist() == [4, 5, 6]
    assert rows.lengths.tolist() == [2, 0, 1, 3]
    part = rows[1:3]
    assert [row.tolist() for row in part] == [[], [3]]
    assert part.offsets.tolist() == [0, 0, 1]
    assert len(rows[3:1]) == len(rows[9:]) == 0
    assert rows.beginnings(np.array([1, 0, 1, 2])).tolist() == [1, 3, 4, 5]
    assert Rows.of(rows) is rows
    assert len(Rows.of([])) == 0
    with pytest.raises(IndexError):
        rows[4]


def test_texts_are_those_that_were_given():
    texts = Texts.of(["a", "b", "c"])
    assert texts == ("a", "b", "c")
    assert texts != ("a", "b")
    assert texts[1:] == ["b", "c"]
    assert (texts[np.int64(1)], texts[-1]) == ("b", "c")


def _notes():
    rows = [("b", 3, ["late", "later"]), ("a", 1, ["x"]), ("b", 1, ["early"]), ("b", 2, []), ("z", 1, ["stranger"])]
    rows += [("b", 3, ["last"])]
    schema = pa.schema({"user_id": pa.string(), "position": pa.int32(), "preferences": pa.list_(pa.string())})
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    return Notes.read(Texts.of(["a", "b", "c"]), table)


def test_notes_are_of_their_users_and_the_last_of_a_position_counts():
    notes = _notes()
    assert [dict(note) for note in notes] == [{1: ("x",)}, {3: ("last",), 1: ("early",)}, {}]
    assert [dict(note) for note in notes[1:]] == [{3: ("last",), 1: ("early",)}, {}]
    assert list(Notes.read(Texts.of(["a"]), None)) == [{}]


def test_a_slice_takes_only_itself_along():
    texts = Texts.of([f"user {n:06}" for n in range(10_000)])
    part = pickle.dumps(texts[:10])
    assert len(part) < 2_000
    assert pickle.loads(part) == texts[:10]
    notes = pickle.loads(pickle.dumps(_notes()[1:2]))
    assert [dict(note) for note in notes] == [{3: ("last",), 1: ("early",)}]
