from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import InMemoryExamples, collate, make_batch
from ray_jobs.data.catalogue import read_catalogue
from ray_jobs.data.examples import evaluation_examples, latest_preferences, training_examples
from ray_jobs.data.histories import read_histories
from schemas.columns import PAD
from schemas.errors import DataError


@pytest.mark.parametrize("every_prefix", [True, False])
def test_training_examples_never_see_a_held_out_item(every_prefix):
    histories = small_histories()
    poison = len(small_catalogue())
    poisoned = tuple(
        np.concatenate([items[:valid], np.full(len(items) - valid, poison)])
        for items, valid in zip(histories.items, histories.valid_position, strict=True)
    )
    examples = training_examples(replace(histories, items=poisoned), 20, every_prefix)
    assert poison not in examples.items
    assert poison not in examples.targets
    expected = sum(int(v) - 1 if every_prefix else 1 for v in histories.valid_position)
    assert len(examples) == expected


def test_every_prefix_of_a_history_is_an_example_and_long_ones_keep_their_end():
    histories = small_histories(users=1)
    items = histories.training_items(0)
    examples = training_examples(histories, 2, every_prefix=True)
    assert [examples.history(row).tolist() for row in range(len(examples))] == [
        items[max(0, t - 2) : t].tolist() for t in range(1, len(items))
    ]
    assert examples.targets.tolist() == items[1:].tolist()


def test_a_history_without_held_out_positions_trains_on_all_of_it():
    histories = small_histories(users=1)
    none = replace(histories, valid_position=np.array([-1]), test_position=np.array([-1]))
    assert none.training_items(0).tolist() == histories.items[0].tolist()
    assert len(evaluation_examples(none, "test", 20)) == 0


def test_test_histories_end_with_the_validation_item():
    histories = small_histories()
    examples = evaluation_examples(histories, "test", 20)
    for row in range(len(examples)):
        assert examples.history(row).tolist() == histories.items[row][:-1].tolist()
        assert examples.targets[row] == histories.items[row][-1]


def test_a_preference_conditions_only_what_comes_after_the_reviews_it_rests_on():
    histories = small_histories(users=1)
    assert sorted(histories.preferences[0]) == [1, 3]
    assert histories.latest_preferences(0, 1) == ()
    assert histories.latest_preferences(0, 2) == histories.preferences[0][1]
    assert histories.latest_preferences(0, 3) == histories.preferences[0][1]
    assert histories.latest_preferences(0, 4) == histories.preferences[0][3]
    joined = latest_preferences(histories, evaluation_examples(histories, "test", 20))
    assert joined == [f"{histories.preferences[0][3][0]}. Avoid noise"]


def test_a_pass_covers_every_example_once_and_depends_on_the_seed_only():
    source = InMemoryExamples(training_examples(small_histories(), 20, True))

    def seen(seed):
        batches = list(source.batches(16, seed))
        return [tuple(row) for b in batches for row in zip(b.history.sum(1).tolist(), b.targets.tolist(), strict=True)]

    assert seen(1) == seen(1) != seen(2)
    targets = sorted(b for batch in source.batches(16, 3) for b in batch.targets.tolist())
    assert targets == sorted(source.examples.targets.tolist())


def test_workers_get_disjoint_shares_of_equal_size():
    source = InMemoryExamples(training_examples(small_histories(), 20, True))
    share = len(source) // 3
    rows = [[t for b in source.batches(16, 5, rank, 3) for t in b.targets.tolist()] for rank in range(3)]
    assert [len(row) for row in rows] == [share] * 3
    counted = np.bincount(np.concatenate(rows), minlength=30)
    assert (counted <= np.bincount(source.examples.targets, minlength=30)).all()


def test_workers_split_the_batches_of_one_worker_and_skipped_batches_are_the_first_ones():
    source = InMemoryExamples(training_examples(small_histories(users=61), 20, True))
    alone = [b.targets.tolist() for b in source.batches(32, 5)]
    halves = [[b.targets.tolist() for b in source.batches(16, 5, rank, 2)] for rank in range(2)]
    assert len(source) % 2 == 0
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in alone]
    assert [b.targets.tolist() for b in source.batches(32, 5, skip=3)] == alone[3:]


def test_batches_are_padded_on_the_right():
    batch = make_batch([[3, 4], [], [5]], ["", "quiet", ""])
    assert batch.history.tolist() == [[3, 4], [PAD, PAD], [5, PAD]]
    assert batch.lengths.tolist() == [2, 0, 1]
    assert batch.preferences == ("", "quiet", "")
    assert collate(training_examples(small_histories(), 20, True), np.array([0, 2])).targets.shape == (2,)


def _tables():
    items = pa.Table.from_pylist(
        [
            {"item_id": "b", "title": "Title", "text": "text of b", "brand": "B", "categories": ["x"], "price": 2.0},
            {"item_id": "a", "title": None, "text": "text of a", "brand": None, "categories": [], "price": None},
            {"item_id": "unused", "title": "Unused", "text": "unused", "brand": "U", "categories": [], "price": 1.0},
        ]
    )
    sequences = pa.Table.from_pylist(
        [
            {"user_id": "u2", "item_ids": ["a"], "valid_position": None, "test_position": None},
            {"user_id": "u1", "item_ids": ["b", "a", "b"], "valid_position": 1, "test_position": 2},
        ]
    )
    return items, sequences


def test_tables_become_a_sorted_catalogue_and_indices():
    items, sequences = _tables()
    catalogue = read_catalogue(sequences, items)
    assert catalogue.item_ids == ("a", "b")
    assert catalogue.titles == ("a", "Title")
    assert catalogue.attributes.to_pydict() == {"brand": [None, "B"], "categories": [[], ["x"]], "price": [None, 2.0]}
    histories = read_histories(sequences, catalogue)
    assert histories.user_ids == ("u1", "u2")
    assert [h.tolist() for h in histories.items] == [[1, 0, 1], [0]]
    assert histories.test_position.tolist() == [2, -1]


def test_missing_items_and_codes_are_named():
    items, sequences = _tables()
    with pytest.raises(DataError, match=r"lacks 1 of the 2 items in sequences, e.g. 'b'"):
        read_catalogue(sequences, items.slice(1))
    catalogue = read_catalogue(sequences, items)
    with pytest.raises(DataError, match=r"no codes for 1 of 2 catalogue items, e.g. 'b'"):
        catalogue.with_codes({"a": [0, 0]}, (1, 1))
    with pytest.raises(DataError, match="a user twice"):
        read_histories(pa.concat_tables([sequences, sequences]), catalogue)
