from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_world import CLUSTERS, PER_CLUSTER, small_catalogue, small_histories

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import join_examples, make_examples, training_examples
from ray_jobs.data.fusion import fused_examples
from ray_jobs.data.training_data import TrainingData
from ray_jobs.recipes.generative.conditioning import ConditionedSettings, _swapped, conditioned
from ray_jobs.recipes.generative.menderemb import MenderEmb, MenderEmbSettings
from ray_jobs.train import make_plan
from schemas.errors import DataError
from schemas.preference_benchmark import COARSE, FINE, PREFERENCE_BENCHMARK, SENTIMENT

CATALOGUE = small_catalogue()
TINY = {"width": 16, "layers": 1, "heads": 2, "head_width": 8, "inner": 16, "beams": 30, "dropout": 0.0}


def sample(axis, number, **changes):
    return {
        "axis": axis,
        "split": "train",
        "sample_id": f"{axis}-{number}",
        "history_user_id": f"U{number:03d}",
        "history_end": 2,
        "target_item_id": f"I{number}0",
        "preference": f"Prefers {number}",
        "opposite": f"Avoids {number}" if axis == SENTIMENT else None,
        "latest": None,
        "random": None,
        "random_opposite": None,
        "partner_item_id": None,
        "similarity": None,
        "seen_in_training": True,
        "partition_date": None,
        **changes,
    }


def table(rows):
    return pa.Table.from_pylist(rows, PREFERENCE_BENCHMARK.arrow_schema())


def fused(rows, kinds, **given):
    return fused_examples(table(rows), small_histories(), CATALOGUE, kinds, **{"max_history": 20, **given})


def test_steering_samples_read_the_partners_history_and_sentiment_samples_none():
    histories = small_histories()
    rows = [sample(FINE, 2), sample(FINE, 1), sample(COARSE, 3), sample(SENTIMENT, 4)]
    rows += [sample(FINE, 5, split="test"), sample(FINE, 0, split="valid")]
    found = fused(rows, ["fine_steering", "negative", "positive"])
    assert found.targets.tolist() == [CATALOGUE.index[item] for item in ("I10", "I20", "I40", "I40")]
    assert found.preferences == ("Prefers 1", "Prefers 2", "Avoids 4", "Prefers 4")
    assert found.negative.tolist() == [False, False, True, False]
    for row, user in ((0, 1), (1, 2)):
        assert found.history(row).tolist() == histories.items[user][:2].tolist()
    assert len(found.history(2)) == len(found.history(3)) == 0
    assert len(fused(rows, ["fine_steering"], max_history=1).history(0)) == 1


def test_samples_that_do_not_fit_the_data_are_refused_with_what_is_wrong():
    with pytest.raises(DataError, match="coarse_steering-1: user 'U001' or item 'gone'"):
        fused([sample(COARSE, 1, target_item_id="gone")], ["coarse_steering"])
    held_out = int(small_histories().valid_position[1])
    with pytest.raises(DataError, match=f"up to position {held_out + 1}, beyond its training positions"):
        fused([sample(FINE, 1, history_end=held_out + 1)], ["fine_steering"])
    with pytest.raises(DataError, match="no training sample of positive"):
        fused([sample(FINE, 1)], ["positive"])


def test_joined_examples_are_the_parts_one_after_another():
    first = training_examples(small_histories(users=5), 20, True)
    second = fused([sample(SENTIMENT, 4), sample(SENTIMENT, 2)], ["negative"])
    both = join_examples([first, second])
    assert len(both) == len(first) + 2
    for row in range(len(both)):
        part, place = (first, row) if row < len(first) else (second, row - len(first))
        assert both.history(row).tolist() == part.history(place).tolist()
        assert both.targets[row] == part.targets[place]
        assert both.negative[row] == (row >= len(first))
    batch = next(InMemoryExamples(both).batches(len(both), None))
    assert batch.negative.tolist() == both.negative.tolist()
    assert batch.rows(len(first), len(both)).negative.tolist() == [True, True]


def test_the_plan_trains_on_the_added_examples_as_well():
    torch.manual_seed(0)
    model = MenderEmb(MenderEmbSettings(**TINY), CATALOGUE)
    data = TrainingData(CATALOGUE, small_histories(users=12), "v1")
    added = fused([sample(FINE, 1), sample(SENTIMENT, 2)], ["fine_steering", "negative"])
    alone, more = make_plan("menderemb", model, data), make_plan("menderemb", model, data, added=added)
    assert len(more.train) == len(alone.train) + 2
    assert more.train.preferences[-2:] == ("Prefers 1", "Avoids 2")


def test_learning_raises_what_is_wanted_and_lowers_what_is_rejected():
    torch.manual_seed(0)
    model = MenderEmb(MenderEmbSettings(**TINY, label_smoothing=0.0), CATALOGUE).train()
    rows = make_batch([[], []], ["Prefers tents", "Avoids tents"], np.array([12, 12]), negative=np.array([False, True]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def likelihood():
        return model.eval().log_probabilities(rows)[:, 12].exp().tolist()

    before = likelihood()
    for _ in range(60):
        model.train()
        optimizer.zero_grad()
        model.loss(rows)["loss"].backward()
        optimizer.step()
    wanted, rejected = likelihood()
    assert wanted > 0.5 > 10 * before[0]
    assert rejected < 0.1


def test_the_loss_of_a_rejected_target_is_its_unlikelihood():
    torch.manual_seed(0)
    model = MenderEmb(MenderEmbSettings(**TINY, label_smoothing=0.1, negative_weight=0.5), CATALOGUE).eval()
    histories, texts, goals = [[3, 4], [7]], ["Prefers lamps", "Avoids lamps"], np.array([20, 21])
    plain = model.loss(make_batch(histories[:1], texts[:1], goals[:1]))["loss"]
    both = model.loss(make_batch(histories, texts, goals, negative=np.array([False, True])))["loss"]
    scores = model.log_probabilities(make_batch(histories, texts, goals))[1].exp().reshape(len(CLUSTERS), PER_CLUSTER)
    first = scores.sum(dim=1)[21 // PER_CLUSTER]
    second = scores[21 // PER_CLUSTER, 21 % PER_CLUSTER] / first
    unlikelihood = -(torch.log1p(-first) + torch.log1p(-second)).item()
    assert both.item() == pytest.approx((plain.item() + 0.5 * unlikelihood) / 2, rel=1e-5)


def test_fitting_wishes_stand_again_alone_and_turned_round():
    prefers = dict.fromkeys(range(9), ("Prefers lamps", "Avoids noise"))
    histories = small_histories(users=20)
    histories = replace(histories, preferences=(prefers,) * len(histories))
    examples = training_examples(histories, 20, True)
    model = MenderEmb(MenderEmbSettings(**TINY), CATALOGUE)

    def given(**shares):
        settings = ConditionedSettings(preference_dropout=0.0, matched_share=1.0, **shares)
        return conditioned(examples, histories, settings, model.text_encoder, CATALOGUE)

    plain, alone, twins = given(), given(alone_share=1.0), given(twin_share=1.0)
    n = len(examples)
    assert len(plain) == n
    assert plain.negative is None
    assert len(alone) == len(twins) == 2 * n
    assert set(alone.preferences[n:]) == {"Prefers lamps"}
    assert all(len(alone.history(row)) == 0 for row in range(n, 2 * n))
    assert twins.negative.tolist() == [False] * n + [True] * n
    assert set(twins.preferences[n:]) == {"Avoids lamps"}
    for row in range(n):
        assert alone.targets[n + row] == twins.targets[n + row] == plain.targets[row]
        assert twins.history(n + row).tolist() == plain.history(row).tolist()
    both = given(alone_share=1.0, twin_share=0.5)
    assert both.negative[: 2 * n].sum() == 0
    assert 0.3 * 2 * n < both.negative.sum() == len(both) - 2 * n < 0.7 * 2 * n
    assert given(twin_share=0.5).preferences == given(twin_share=0.5).preferences


def test_swapped_examples_keep_their_history_and_take_preference_and_target_together():
    histories = small_histories(told=True)
    examples = training_examples(histories, 20, True)
    model = MenderEmb(MenderEmbSettings(**TINY), CATALOGUE)
    settings = ConditionedSettings(preference_dropout=0.0, matched_share=0.0, swap_share=0.5)

    def given(share):
        return conditioned(examples, histories, replace(settings, swap_share=share), model.text_encoder, CATALOGUE)

    plain, swapped = given(0.0), given(0.5)
    assert swapped.preferences == given(0.5).preferences, "drawn once under the seed"
    changed = np.flatnonzero(swapped.targets != plain.targets)
    assert 0.35 < len(changed) / len(examples) < 0.6
    near = 0
    for row in range(len(examples)):
        assert swapped.history(row).tolist() == plain.history(row).tolist()
        assert CLUSTERS[swapped.targets[row] // PER_CLUSTER] in swapped.preferences[row]
    for row in changed:
        near += swapped.targets[row] // PER_CLUSTER == plain.targets[row] // PER_CLUSTER
    assert 0.4 < near / len(changed) < 0.6, "in turns an item of the same first code and one of another"


def test_a_swap_takes_the_nearest_other_item_or_one_of_another_first_code():
    """Beside the definition, over all pairs."""
    rng = np.random.default_rng(4)
    codes = rng.integers([3, 3, 2], size=(25, 3))
    catalogue = Catalogue(tuple(map(str, range(25))), ("",) * 25, ("",) * 25, codes, (3, 3, 2))
    targets = rng.integers(25, size=300)
    texts = tuple(f"wish {row}" if rng.random() < 0.7 else "" for row in range(300))
    examples = make_examples(300, {"history": [[0]] * 300, "targets": targets, "preferences": texts})
    swapped = _swapped(examples, ConditionedSettings(swap_share=0.5), catalogue)
    shared = np.cumprod(codes[targets][:, None] == codes[targets][None], axis=2).sum(2)
    givers = np.array([bool(text) for text in texts])
    near = other = 0
    for row, text in enumerate(swapped.preferences):
        if text == texts[row]:
            continue
        giver = texts.index(text)
        assert swapped.targets[row] == targets[giver]
        best = shared[row][givers & (targets != targets[row])].max()
        assert shared[row, giver] in {0, best}
        near, other = near + (shared[row, giver] == best), other + (shared[row, giver] == 0)
    assert min(near, other) > 40
