from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_histories

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.crops import Crop
from ray_jobs.data.examples import training_examples
from ray_jobs.data.histories import Histories
from ray_jobs.data.sub_sequences import SubSequences

ITEMS = 30


def _found(histories, most=8, crop=None):
    return SubSequences.of(InMemoryExamples(training_examples(histories, most, every_prefix=False), crop), ITEMS)


def _listed(found, most=8):
    batch = found.batch(torch.arange(len(found)), most)
    rows = zip(batch.history.tolist(), batch.lengths.tolist(), batch.targets.tolist(), strict=True)
    return [(tuple(history[:length]), target) for history, length, target in rows]


def test_they_are_the_histories_of_all_training_positions_but_the_first():
    histories = small_histories()
    rows = [histories.training_items(user).tolist() for user in range(len(histories))]
    expected = [(tuple(row[:end]), row[end]) for row in rows for end in range(1, len(row))]
    found = _found(histories)
    assert sorted(_listed(found)) == sorted(expected)
    assert [target for _, target in _listed(found)] == sorted(target for _, target in expected)
    for item in range(ITEMS):
        first, end = found.bounds[item : item + 2].tolist()
        assert (found.targets(torch.arange(first, end)) == item).all()
    poisoned = replace(histories, items=tuple(np.append(items[:-2], [0, 0]) for items in histories.items))
    assert _listed(_found(poisoned)) == _listed(found), "what is held out is in none"


def test_long_histories_keep_their_newest_items():
    rows = (np.arange(14) % ITEMS, np.array([3, 4, 5, 6]))
    ends = np.array([12, 2])
    histories = Histories(("u", "v"), rows, ends, ends + 1, ({}, {}))
    windows = [(tuple(range(max(0, end - 3), end)), end) for end in range(1, 12)]
    cropped = _found(histories, most=12, crop=Crop(2, 3))
    assert sorted(_listed(cropped, 3)) == sorted([*windows, ((3,), 4)]), "crops are taken from whole histories"
    assert sorted(_listed(_found(histories, most=3), 3)) == sorted(
        [((8,), 9), ((8, 9), 10), ((8, 9, 10), 11), ((3,), 4)]
    ), "what the examples have"


def test_another_one_with_the_same_target_is_drawn_uniformly():
    rows = [[1, 9], [2, 9], [3, 9], [4, 9], [5, 8]]
    ends = np.full(5, 2)
    histories = Histories(tuple("uvwxy"), tuple(np.array([*r, 0, 0]) for r in rows), ends, ends + 1, ({},) * 5)
    found = _found(histories)
    torch.manual_seed(0)
    drawn = found.drawn(40_000)
    assert torch.bincount(drawn).div(8_000).tolist() == pytest.approx([1.0] * 5, abs=0.05)
    others = found.others(drawn)
    assert torch.equal(found.targets(others), found.targets(drawn))
    assert (others[drawn == 0] == 0).all(), "alone with its target"
    pairs = torch.zeros(5, 5).index_put((drawn, others), torch.ones(1), accumulate=True)[1:, 1:] / 8_000
    assert torch.allclose(pairs, (1 - torch.eye(4)) / 3, atol=0.02), "any but itself"
