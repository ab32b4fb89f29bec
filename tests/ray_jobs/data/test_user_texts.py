"""What is said of users, from tables to the examples that a recipe hears: nothing of a held-out review among it."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from planted_warehouse import IDENTITY, PARTITION
from small_world import small_catalogue, small_histories

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import read_histories
from ray_jobs.data.tables import publish, read_table
from ray_jobs.data.training_data import read_training_data
from ray_jobs.data.user_texts import examples_with_texts
from ray_jobs.registry.provenance import tables_of
from schemas.recipes import Need
from schemas.review_summaries import REVIEW_SUMMARIES

DAY = dt.date.fromisoformat(PARTITION)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def _rows(told):
    """(user, position of the text, history, target, text) of each example."""
    return [
        (user, position - 1, told.history(row).tolist(), int(told.targets[row]), told.preferences[row])
        for row, (user, position) in enumerate(zip(told.users.tolist(), told.positions.tolist(), strict=True))
    ]


def _world():
    """Two users with six and three items, of which the last two are held out."""
    return replace(
        small_histories(users=2),
        items=(np.arange(6), np.array([7, 8, 9])),
        valid_position=np.array([4, 1]),
        test_position=np.array([5, 2]),
        preferences=({0: ("Find a", "Avoid b"), 2: ("Find c",), 3: ("late",), 4: ("held out",)}, {0: ("alone",)}),
        summaries=({1: ("Likes d.",), 3: ("late",), 5: ("held out",)}, {2: ("held out",)}),
    )


@pytest.mark.parametrize(
    ("which", "texts"),
    [
        ("preferences", {0: "Find a. Avoid b", 2: "Find c"}),
        ("summaries", {1: "Likes d"}),
        ("both", {0: "Find a. Avoid b", 1: "Likes d. Find a. Avoid b", 2: "Likes d. Find c"}),
    ],
)
def test_a_text_stands_beside_the_history_that_it_rests_on_and_a_target_to_train_on(which, texts):
    told = examples_with_texts(_world(), 2, which)
    assert _rows(told) == [
        (0, position, list(range(max(0, position - 1), position + 1)), position + 1, text)
        for position, text in texts.items()
    ]


def test_titles_are_those_of_the_history_as_it_is_kept():
    told = examples_with_texts(_world(), 2, "titles", "abcdefghij")
    assert [text for *_, text in _rows(told)] == ["a", "a. b", "b. c"]
    assert [target for *_, target, _ in _rows(told)] == [1, 2, 3]


@pytest.mark.parametrize("which", ["both", "summaries", "preferences", "titles"])
def test_nobody_and_nothing_are_no_examples(which):
    world = replace(_world(), items=(np.arange(1), np.arange(1)), summaries=(), valid_position=np.array([-1, -1]))
    assert len(examples_with_texts(world, 5, which, "abc")) == 0


def test_what_is_held_out_changes_nothing():
    histories = small_histories()
    summaries = tuple({p: (f"to {p}",) for p in range(len(items))} for items in histories.items)
    histories = replace(histories, summaries=summaries)
    poisoned = replace(
        histories,
        items=tuple(
            np.where(np.arange(len(items)) < valid, items, 0)
            for items, valid in zip(histories.items, histories.valid_position, strict=True)
        ),
        **{
            name: tuple(
                {p: text if p < valid - 1 else ("poison",) for p, text in notes.items()}
                for notes, valid in zip(getattr(histories, name), histories.valid_position, strict=True)
            )
            for name in ("summaries", "preferences")
        },
    )
    for which in ("both", "titles"):
        one, other = (
            examples_with_texts(world, 20, which, small_catalogue().titles) for world in (histories, poisoned)
        )
        assert _rows(one) == _rows(other)
        assert max(position + 1 - histories.valid_position[user] for user, position, *_ in _rows(one)) == -1


def _read(days, said, **more):
    """Summaries by position of one user with items at `days`, of summaries as of some days."""
    names = tuple(f"i{n}" for n in range(len(days)))
    sequences = pa.table(
        {
            "user_id": ["u", "v"],
            "item_ids": [list(names), list(names[:1])],
            "occurred_at": pa.array(
                [[START + dt.timedelta(days=day) for day in days], [START]], pa.list_(pa.timestamp("us", "UTC"))
            ),
            "valid_position": pa.array([len(days) - 2, None], pa.int32()),
            "test_position": pa.array([len(days) - 1, None], pa.int32()),
        }
    )
    rows = [{"user_id": "u", "as_of": START + dt.timedelta(days=day), "summary": text} for day, text in said]
    summaries = pa.Table.from_pylist(rows, schema=REVIEW_SUMMARIES.arrow_schema()).select(
        ["user_id", "as_of", "summary"]
    )
    histories = read_histories(sequences, Catalogue(names, names, names), None, summaries)
    assert histories.summaries[1] == {}
    return histories.summaries[0]


def test_a_summary_stands_where_all_of_its_reviews_are_in_the_history():
    assert _read([0, 1, 2, 3], [(2, "later"), (0, "first")]) == {0: ("first",), 2: ("later",)}
    assert _read([0, 1, 1, 1, 4], [(1, "of a tie")]) == {3: ("of a tie",)}, "whatever the order of the tie"
    assert _read([0, 2, 4], [(1, "of a removed item")]) == {0: ("of a removed item",)}
    assert _read([1, 2, 4], [(0, "of nothing left"), (9, "newest")]) == {2: ("newest",)}
    assert _read([0, 2, 4], [(3, "second"), (2, "first")]) == {1: ("second",)}, "the newest at a position"
    assert _read([0, 1, 2], [(1, "")]) == _read([0, 1, 2], []) == {}


def _summarised(warehouse, length):
    """Summaries of all users as of every second review, in the warehouse."""
    rows = [
        {
            "user_id": row["user_id"],
            "as_of": row["occurred_at"][position],
            "summary": f"Likes {row['item_ids'][position]}." if position < length else "Likes poison.",
            "reviews_used": position + 1,
            "status": "ok",
        }
        for row in read_table(warehouse.uri("sequences")).to_pylist()
        for position in range(0, row["length"], 2)
    ]
    content = pa.Table.from_pylist([{**row, "partition_date": DAY} for row in rows], REVIEW_SUMMARIES.arrow_schema())
    publish(content, REVIEW_SUMMARIES, warehouse.uri("review_summaries"), {"partition_date": DAY}, IDENTITY)


def test_summaries_reach_a_recipe_that_needs_them_from_the_table(warehouse):
    def read(recipe="sracl", summaries=True):
        request = warehouse.request("train", recipe=recipe)
        assert ("review_summaries" in tables_of(warehouse.settings, request)) is (recipe == "sracl" and there)
        return read_training_data(
            warehouse.settings, request, {Need.PREFERENCES} | ({Need.REVIEW_SUMMARIES} if summaries else set())
        )

    there = False
    assert not any(read().histories.summaries)
    there = True
    _summarised(warehouse, 99)
    data = read()
    assert not any(read("sasrec", summaries=False).histories.summaries)
    told = examples_with_texts(data.histories, 50, "summaries")
    for user, position, history, _, text in _rows(told):
        assert position % 2 == 0
        assert position < data.histories.valid_position[user] - 1
        assert text == f"Likes {data.catalogue.item_ids[history[-1]]}"
    last = max(len(items) for items in data.histories.items)
    _summarised(warehouse, last - 3)
    poisoned = examples_with_texts(read().histories, 50, "summaries")
    longest = [row for row in _rows(poisoned) if len(data.histories.items[row[0]]) == last]
    assert longest
    assert all("poison" not in text for *_, text in longest)
