import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import InMemoryExamples, make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.evaluation.evaluator import evaluate, evaluate_sampled, measured
from ray_jobs.evaluation.measurements import from_rows, to_rows
from ray_jobs.evaluation.metrics import METRICS
from ray_jobs.evaluation.slices import length_bands, popularity_bands, training_counts
from ray_jobs.recipes.generative.base import rank_in_list
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.base import ScoringRecommender, best
from ray_jobs.recommenders.bundle import Bundle
from schemas.columns import PAD
from schemas.measurements import MEASUREMENTS


class Fixed(ScoringRecommender):
    """Gives every row the same scores."""

    name = "fixed"
    needs = frozenset()

    def __init__(self, scores, **settings):
        super().__init__(PopularitySettings(**settings), small_catalogue())
        self.register_buffer("fixed", torch.as_tensor(scores, dtype=torch.float32))

    def loss(self, batch):
        return {"loss": self.fixed.sum()}

    def scores(self, batch):
        return self.fixed.expand(len(batch), -1)


def _batch(targets):
    return make_batch([[0]] * len(targets), [""] * len(targets), np.array(targets))


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


def test_rows_of_the_measurements_table():
    catalogue, histories = small_catalogue(), small_histories()
    model = Popularity(PopularitySettings(), catalogue)
    model.fit_counts(histories)
    told = []
    results = evaluate(model, histories, exclude_seen=False, notify=lambda done, total, _: told.append((done, total)))
    found = measured(results, "popularity@x", histories, catalogue.item_ids, "split=last")
    rows = to_rows(found)
    assert rows.num_rows == 2 * len(histories) * len(METRICS)
    assert told[-1] == (2 * len(histories), 2 * len(histories))
    assert set(rows.column_names) == set(MEASUREMENTS.column_names()) - {"partition_date"}
    (test,) = from_rows(rows.take(np.random.default_rng(0).permutation(rows.num_rows)), "next_item", "test")
    examples = evaluation_examples(histories, "test", 20)
    assert test.units.to_pylist() == [histories.user_ids[user] for user in examples.users]
    assert test.targets.to_pylist() == [catalogue.item_ids[target] for target in examples.targets]
    ranks = np.array([int((model.counts >= model.counts[target]).sum()) for target in examples.targets])
    assert test.values["mrr"].tolist() == (1 / ranks).tolist()
    assert test.values["ndcg_10"].tolist() == np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).tolist()


@pytest.mark.parametrize("unseen", [True, False])
def test_early_stopping_evaluation_and_serving_leave_out_the_same(unseen):
    histories, window = small_histories(), 2
    model = Fixed(np.random.default_rng(0).random(30), max_history=window, validate_unseen=unseen)
    valid = evaluation_examples(histories, "valid", window)
    result = evaluate(model, histories, ("valid",), exclude_seen=unseen)[0]
    score = result.metrics()["ndcg_10"].mean()
    assert model.judge(InMemoryExamples(valid)) == pytest.approx(score)
    pasts = [
        [model.catalogue.item_ids[i] for i in h[:end]] for h, end in zip(histories.items, valid.positions, strict=True)
    ]
    served = Bundle(model, {}).recommend(pasts, [None] * len(pasts), 10, unseen)
    assert [[model.catalogue.index[item] for item, _ in row] for row in served] == result.lists.tolist()
    in_window = make_batch([valid.history(row) for row in range(len(valid))], [""] * len(valid), valid.targets)
    assert (model.ranks(in_window, in_window.history).numpy() != result.ranks).any(), "the window is not the history"


def test_targets_that_stand_in_their_own_history_are_counted():
    histories = small_histories()
    examples = evaluation_examples(histories, "test", 2)
    repeated = [int(items[-1]) in items[:-1].tolist() for items in histories.items]
    assert examples.seen_targets() == sum(repeated) > 0
    ranks = evaluate(Fixed(np.arange(30)), histories, ("test",))[0].ranks
    assert (ranks == 0).tolist() == repeated
    some = np.flatnonzero(repeated)[:3]
    assert examples.at(some).seen_targets() == 3


def test_seen_items_are_left_out_unless_asked_otherwise():
    histories = small_histories()
    model = Fixed(np.arange(30))
    plain = evaluate(model, histories, ("test",), exclude_seen=False)[0]
    without = evaluate(model, histories, ("test",))[0]
    for user in range(len(histories)):
        items = histories.items[user]
        target, before = int(items[-1]), set(items[:-1].tolist())
        assert plain.ranks[user] == 30 - target
        ahead = sum(1 for item in range(target, 30) if item not in before)
        assert without.ranks[user] == (0 if target in before else ahead)


def test_bands_and_lists_of_an_evaluation_rest_on_training_positions():
    catalogue, histories = small_catalogue(), small_histories()
    result = evaluate(Fixed(np.arange(30)), histories, ("test",), exclude_seen=False)[0]
    assert result.counts.tolist() == training_counts(histories, 30).tolist()
    assert result.counts.sum() == sum(histories.valid_position)
    assert result.lists.tolist() == [list(range(29, 19, -1))] * 60
    (found,) = measured([result], "m", histories, catalogue.item_ids, "split=last")
    bands = popularity_bands(result.counts)
    assert found.slices["target"].tolist() == [bands[items[-1]] for items in histories.items]
    assert found.slices["length"].tolist() == length_bands([len(items) - 1 for items in histories.items]).tolist()


def test_a_model_that_knows_nothing_earns_nothing_whatever_its_order():
    histories = small_histories()
    for split in ("valid", "test"):
        result = evaluate(Fixed(np.zeros(30)), histories, (split,), exclude_seen=False)[0]
        assert result.ranks.tolist() == [30] * 60
        assert result.lists[0].tolist() == list(range(10)), "lists are filled in the order of items"
        assert max(values.max() for name, values in result.metrics().items() if name != "mrr") == 0


def test_the_best_columns_equal_a_stable_sort():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (50, 37), generator=generator).float()
    scores[0, 3:] = -torch.inf
    order = torch.sort(scores, dim=1, descending=True, stable=True)
    for k in (1, 10, 37):
        items, values = best(scores, k)
        assert torch.equal(values, order.values[:, :k])
        assert torch.equal(items, torch.where(order.values[:, :k].isinf(), PAD, order.indices[:, :k]))
    assert best(torch.full((1, 4), torch.nan), 2)[0].tolist() == [[PAD, PAD]]


def test_ties_of_a_found_list_count_against_its_target():
    items = torch.tensor([[7, 8, 9], [7, 8, 9], [7, 8, 9], [7, 8, PAD], [7, 8, 9]])
    scores = torch.tensor([[3.0, 2, 1], [3, 3, 1], [3, 1, 1], [1, 1, -torch.inf], [3, 2, 1]])
    targets = torch.tensor([8, 7, 8, 7, 5])
    # Row 2: items of score 1 may have been left out by their order; row 3: the list holds all there are.
    assert rank_in_list(targets, items, scores).tolist() == [2, 2, 0, 2, 0]
    assert rank_in_list(torch.tensor([9]), items[:1], scores[:1]).tolist() == [3]
    assert rank_in_list(torch.tensor([7]), items[:1], torch.zeros(1, 3)).tolist() == [0], "constant scores earn nothing"


def test_a_generative_model_that_knows_nothing_earns_nothing():
    model = Tiger(TigerSettings(width=16, heads=2, head_width=8, inner=16, layers=1, beams=10), small_catalogue())
    with torch.no_grad():
        model.tokens.table.weight.zero_()
    results = evaluate(model, small_histories(), ("test",))
    assert results[0].ranks.max() == 0
    assert (results[0].lists >= 0).all()


def test_sampled_ranks_say_so_and_flatter():
    histories = small_histories()
    model = Fixed(np.arange(30))
    whole = evaluate(model, histories, ("test",), exclude_seen=False)[0]
    sampled = evaluate_sampled(model, histories, ("test",), negatives=5)[0]
    assert all(name.startswith("sampled_") for name in sampled.metrics())
    assert sampled.metrics()["sampled_mrr"].mean() > whole.metrics()["mrr"].mean()
    assert sampled.ranks.max() <= 6
    repeated = evaluate_sampled(model, histories, ("test",), negatives=5)[0]
    assert sampled.ranks.tolist() == repeated.ranks.tolist()
    seen = Fixed(np.isin(np.arange(30), histories.items[0]))
    assert evaluate_sampled(seen, histories, ("test",))[0].ranks[0] == 1, "what the user chose is no negative"
