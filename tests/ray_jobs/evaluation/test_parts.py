import sys

import numpy as np
import pytest
import torch
from ray import cloudpickle
from small_world import small_catalogue, small_histories

from ray_jobs.data.histories import Histories
from ray_jobs.evaluation import parts
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.evaluation.parts import Collected, Ranking, parts_of
from ray_jobs.evaluation.slices import training_counts
from ray_jobs.evaluation.translation import Translation
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(parts, "USERS_PER_PART", 32)


class Told(SASRec):
    """Reads the preferences, so that it is evaluated with and without."""

    conditions = ("history", "history+preference")


def _model(kind=SASRec, catalogue=None):
    torch.manual_seed(0)
    settings = SASRecSettings(width=16, layers=1, heads=1, dropout=0, evaluation_batch_size=16)
    return kind(settings, catalogue or small_catalogue()).eval()


def _collected(model, histories, copies=0, **given):
    found, seen = Collected(), []
    with Ranking(histories, training_counts(histories, len(small_catalogue())), copies, 0.5) as ranking:
        for part in ranking.parts(model, **given):
            found.add(part)
            seen.append(part)
    return found.results(), seen


def _same(found, whole):
    assert [(one.split, one.condition) for one in found] == [(one.split, one.condition) for one in whole]
    for one, other in zip(found, whole, strict=True):
        for name in ("users", "positions", "targets"):
            assert getattr(one.examples, name).tolist() == getattr(other.examples, name).tolist()
        assert one.ranks.tolist() == other.ranks.tolist()
        assert one.places.tolist() == other.places.tolist()
        assert one.exposure() == other.exposure()
        assert one.seen_targets == other.examples.seen_targets()
        assert not one.lists.size
        assert not one.examples.offsets, "no histories are kept"


@pytest.mark.parametrize("kind", [SASRec, Told])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_parts_together_are_the_whole(kind, exclude_seen):
    histories, model = small_histories(users=75), _model(kind)
    found, seen = _collected(model, histories, exclude_seen=exclude_seen)
    assert [len(part) for part in seen] == [2 * len(model.conditions)] * 3
    _same(found, evaluate(model, histories, exclude_seen=exclude_seen))
    served, _ = _collected(model, histories, splits=("test",), as_served=True)
    _same(served, evaluate(model, histories, ("test",), as_served=True))


def test_users_without_a_target_and_without_preferences_are_left_out():
    histories = small_histories(users=75)
    test = np.where(np.arange(75) < 40, -1, histories.test_position)
    plain = Histories(histories.user_ids, histories.items, histories.valid_position, test, ({},) * 75)
    found, _ = _collected(_model(Told), plain)
    assert [(one.split, one.condition, len(one.ranks)) for one in found] == [
        ("valid", "history", 75),
        ("test", "history", 35),
    ]
    assert found[1].examples.users.tolist() == list(range(40, 75))


def test_actors_answer_as_this_process_does_and_take_one_model_after_another(ray_session):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # for `Told`: workers do not find this file
    histories, model = small_histories(users=75), _model(Told)
    day = small_catalogue()
    known, counts = _model(), training_counts(histories, len(day))
    between = Translation.between(known.catalogue, day)
    with Ranking(histories, counts, 2, 0.5) as ranking:
        for one, given in ((model, None), (known, between), (model, None)):
            found = Collected()
            for part in ranking.parts(one, between=given):
                found.add(part)
            whole = evaluate(one, histories, catalogue=None if given is None else day)
            for mine, other in zip(found.results(), whole, strict=True):
                assert mine.ranks.tolist() == other.ranks.tolist()
                assert mine.places.tolist() == other.places.tolist()


def test_a_part_is_a_view_of_the_whole():
    histories = small_histories(users=75)
    sizes = [(first, len(part)) for first, part in parts_of(histories)]
    assert sizes == [(0, 32), (32, 32), (64, 11)]
    (_, part), *_ = parts_of(histories)
    assert np.shares_memory(part.items.values, histories.items.values)
