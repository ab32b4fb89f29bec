from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import make_batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.evaluation.slices import training_counts
from ray_jobs.evaluation.translation import Translation
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recommenders.bundle import Bundle

SETTINGS = SASRecSettings(max_history=3, width=8, layers=1, evaluation_batch_size=7)


def model_of(item_ids):
    torch.manual_seed(0)
    model = SASRec(SETTINGS, Catalogue(item_ids, item_ids, item_ids))
    model.eval()
    return model


def test_a_model_of_the_same_catalogue_gets_the_same_ranks_either_way():
    histories = replace(small_histories(), times=tuple(np.arange(len(h)) * 60 for h in small_histories().items))
    model = model_of(small_catalogue().item_ids)
    for exclude_seen in (False, True):
        plain = evaluate(model, histories, exclude_seen=exclude_seen)
        beside = evaluate(model, histories, exclude_seen=exclude_seen, catalogue=small_catalogue())
        for one, other in zip(plain, beside, strict=True):
            assert np.array_equal(one.ranks, other.ranks)
            assert np.array_equal(one.lists, other.lists)
            assert np.array_equal(one.examples.items, other.examples.items)
            assert np.array_equal(one.examples.times, other.examples.times)
            assert one.exposure() == other.exposure()


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_items_that_a_champion_does_not_know_are_skipped_and_missed(exclude_seen):
    day, histories = small_catalogue(), small_histories()
    known = [item for item in day.item_ids if not item.endswith("4")]
    model = model_of(tuple(sorted([*known, "A-gone", "Z-gone"])))
    results = evaluate(model, histories, ("test",), exclude_seen, catalogue=day)
    (result,) = results
    bundle = Bundle(model, {})
    missed = 0
    for row, user in enumerate(result.examples.users):
        items = [day.item_ids[item] for item in histories.items[user]]
        past, target = items[: int(result.examples.positions[row])], items[int(result.examples.positions[row])]
        answer = [item for item, _ in bundle.recommend([past], [None], len(model.catalogue), exclude_seen)[0]]
        assert result.ranks[row] == (answer.index(target) + 1 if target in answer else 0)
        shown = [day.index.get(item, -1) for item in answer[:10]]
        assert result.lists[row].tolist() == shown
        assert len(result.examples.history(row)) == min(3, sum(item in model.catalogue.index for item in past))
        missed += target not in model.catalogue.index
    assert missed > 3
    assert (result.ranks == 0).sum() >= missed
    assert np.array_equal(result.counts, training_counts(histories, len(day)))
    assert result.exposure()["coverage_10"] <= len(known) / len(day)


def test_histories_in_the_indices_of_another_catalogue_keep_what_it_knows():
    day, histories = small_catalogue(), small_histories()
    histories = replace(histories, times=tuple(np.arange(len(h)) * 60 for h in histories.items))
    same = Translation.between(day, day).known(histories)
    assert all(map(np.array_equal, same.items, histories.items))
    assert all(map(np.array_equal, same.times, histories.times))
    assert same.test_position.tolist() == histories.test_position.tolist()
    assert same.preferences == histories.preferences
    known = tuple(item for item in day.item_ids if not item.endswith("4"))
    own = Catalogue(known, known, known)
    fewer = Translation.between(own, day).known(histories)
    for user, items in enumerate(histories.items):
        kept = [p for p in range(len(items)) if day.item_ids[items[p]] in own.index]
        assert [known[item] for item in fewer.items[user]] == [day.item_ids[items[p]] for p in kept]
        assert fewer.times[user].tolist() == [60 * p for p in kept]
        for split in ("valid", "test"):
            before = sum(p < histories.target_position(user, split) for p in kept)
            assert fewer.target_position(user, split) == min(before, len(kept) - 1)
        assert fewer.latest_preferences(user, len(kept)) == histories.latest_preferences(user, len(items))


def test_a_history_of_strangers_is_an_empty_one():
    day, histories = small_catalogue(), small_histories(users=1)
    target = day.item_ids[int(histories.items[0][histories.test_position[0]])]
    model = model_of(tuple(sorted(["A-gone", target])))
    (result,) = evaluate(model, histories, ("test",), catalogue=day)
    known = len(result.examples.history(0))
    history = [model.catalogue.index[target]] * known
    goal = np.array([model.catalogue.index[target]])
    assert result.ranks.tolist() == model.ranks(make_batch([history], [""], goal)).tolist()
