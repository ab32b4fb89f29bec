import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories

from ray_jobs.data.histories import PAD, evaluation_examples, make_batch
from ray_jobs.evaluation.evaluator import evaluate, evaluation_rows
from ray_jobs.evaluation.metrics import bootstrap, ndcg, recall
from ray_jobs.recommenders.base import ScoringRecommender, Signals
from ray_jobs.recommenders.popularity import Popularity, PopularitySettings
from schemas.evaluations import EVALUATIONS


class Fixed(ScoringRecommender):
    """Gives every row the same scores."""

    name = "fixed"
    signals = Signals()
    settings_class = PopularitySettings

    def __init__(self, scores):
        super().__init__(PopularitySettings(), small_catalogue())
        self.register_buffer("fixed", torch.as_tensor(scores, dtype=torch.float32))

    def loss(self, batch):
        return {"loss": self.fixed.sum()}

    def scores(self, batch):
        return self.fixed.expand(len(batch), -1)


def _batch(targets):
    return make_batch([[0]] * len(targets), [""] * len(targets), np.array(targets))


def test_metrics_by_hand():
    ranks = [1, 2, 5, 6, 10, 11, 0]
    assert recall(ranks, 5).tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert recall(ranks, 10).tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert ndcg(ranks, 10) == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(6), 1 / np.log2(7), 1 / np.log2(11), 0, 0])


def test_ranks_equal_brute_force_with_ties_against_the_model():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, 30).astype(float)
    ranks = Fixed(scores).ranks(_batch(range(30))).tolist()
    assert ranks == [int((scores > s).sum() + (scores == s).sum()) for s in scores]
    assert Fixed(np.zeros(30)).ranks(_batch([4])).tolist() == [30], "a constant model earns nothing"


def test_excluded_items_do_not_come_out_and_do_not_count():
    model = Fixed(np.arange(30))
    exclude = torch.tensor([[29, 28, PAD]])
    items, scores = model.topk(_batch([27]), 3, exclude)
    assert items.tolist() == [[27, 26, 25]]
    assert model.ranks(_batch([27]), exclude).tolist() == [1]
    assert model.ranks(_batch([29]), exclude).tolist() == [0]
    items, scores = model.topk(_batch([0]), 31)
    assert items[0, -1] == -1
    assert scores[0, -1] == -torch.inf


def test_popularity_counts_training_positions_only():
    catalogue, histories = small_catalogue(), small_histories()
    model = Popularity(PopularitySettings(), catalogue)
    model.fit_counts(histories)
    expected = np.zeros(len(catalogue))
    for items, valid in zip(histories.items, histories.valid_position, strict=True):
        np.add.at(expected, items[:valid], 1)
    assert model.counts.tolist() == expected.tolist()


def test_bootstrap_covers_the_mean_and_sees_a_paired_difference():
    rng = np.random.default_rng(1)
    base = rng.random(400)
    interval = bootstrap(base)
    assert interval.low < base.mean() < interval.high
    assert interval == bootstrap(base)
    better = base + rng.normal(0.02, 0.05, 400)
    assert bootstrap(better - base).low > 0
    assert bootstrap(better).low < bootstrap(base).high, "unpaired intervals overlap"


def test_rows_of_the_evaluations_table():
    catalogue, histories = small_catalogue(), small_histories()
    model = Popularity(PopularitySettings(), catalogue)
    model.fit_counts(histories)
    told = []
    results = evaluate(model, histories, notify=lambda done, total, note: told.append((done, total)))
    rows = evaluation_rows(results, "popularity@x", histories, catalogue.item_ids)
    assert rows.num_rows == 2 * len(histories)
    assert told[-1] == (rows.num_rows, rows.num_rows)
    assert set(rows.column_names) == set(EVALUATIONS.column_names()) - {"partition_date"}
    test = [row for row in rows.to_pylist() if row["split"] == "test"]
    examples = evaluation_examples(histories, "test", 20)
    for row, target in zip(test, examples.targets, strict=True):
        score = model.counts[target]
        assert row["rank"] == int((model.counts >= score).sum())
        assert row["target_item_id"] == catalogue.item_ids[target]
        assert row["ndcg_10"] == pytest.approx(1 / np.log2(row["rank"] + 1) if row["rank"] <= 10 else 0)


def test_seen_items_are_ranked_unless_asked_otherwise():
    histories = small_histories()
    model = Fixed(np.arange(30))
    plain = evaluate(model, histories, ("test",))[0]
    without = evaluate(model, histories, ("test",), exclude_seen=True)[0]
    for user in range(len(histories)):
        items = histories.items[user]
        target, before = int(items[-1]), set(items[:-1].tolist())
        assert plain.ranks[user] == 30 - target
        ahead = sum(1 for item in range(target, 30) if item not in before)
        assert without.ranks[user] == (0 if target in before else ahead)
