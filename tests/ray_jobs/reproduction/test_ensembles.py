"""Ensembles: members keep their scores, weights are chosen on validation only, and a result says what they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue, small_histories
from test_benchmark_runs import kept, reproduce

from infra.errors import SettingError
from ray_jobs.data.batches import make_batch
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.generative.settings import TigerSettings
from ray_jobs.recipes.sequential.settings import PopularitySettings, SASRecSettings
from ray_jobs.reproduction.ensembles import FORMS, Choice, Ensemble, choose, comparable, grid
from ray_jobs.reproduction.experiments import make_experiment
from ray_jobs.reproduction.rows import rows_of
from ray_jobs.reproduction.table import markdown

REACH = 4


def members(histories):
    """Popularity and two untrained recipes, one of which searches, of different reach."""
    catalogue = small_catalogue()
    torch.manual_seed(0)
    popular = recipe_class("popularity")(PopularitySettings(), catalogue)
    popular.fit_counts(histories)
    sequential = recipe_class("sasrec")(SASRecSettings(width=8, max_history=REACH, dropout=0.0), catalogue)
    sizes = {"width": 8, "heads": 1, "head_width": 8, "inner": 8, "layers": 1, "encoder_layers": 1, "dropout": 0.0}
    return [popular, sequential, recipe_class("tiger")(TigerSettings(**sizes, max_history=6, beams=10), catalogue)]


def test_a_member_by_itself_is_ranked_as_without_an_ensemble():
    histories = small_histories()
    for form in FORMS:
        for member in members(histories)[:2]:
            whole = Ensemble([member], Choice(form, (1.0,), 0.0, (0.0,)))
            for unseen in (True, False):
                (alone,) = evaluate(member, histories, ("test",), exclude_seen=unseen)
                (found,) = evaluate(whole, histories, ("test",), exclude_seen=unseen)
                assert (found.ranks == alone.ranks).all()


def test_the_chosen_weights_have_the_score_that_evaluation_finds_and_no_others_a_better_one():
    histories = small_histories()
    mixed = members(histories)
    valid = evaluation_examples(histories, "valid", 20)
    choice = choose(mixed, valid)

    def score(form, weights):
        (found,) = evaluate(Ensemble(mixed, Choice(form, weights, 0.0, ())), histories, ("valid",))
        return found.metrics()["ndcg_10"].mean()

    assert sum(choice.weights) == pytest.approx(1)
    assert choice.score == pytest.approx(score(choice.form, choice.weights), abs=1e-3)
    assert choice.score >= max(choice.alone)
    for place in range(2):
        alone = tuple(float(place == other) for other in range(3))
        assert choice.alone[place] == pytest.approx(score(FORMS[0], alone), abs=1e-3)
    every = grid(3)
    assert len(every) == 66
    assert (every.sum(dim=1) - 1).abs().max() < 1e-6
    sample = every[torch.randperm(66, generator=torch.Generator().manual_seed(0))[:5]]
    assert all(score(form, tuple(weights.tolist())) <= choice.score + 1e-3 for form in FORMS for weights in sample)


def test_the_choice_does_not_change_with_the_test_targets():
    histories = small_histories()
    mixed = members(histories)
    other = replace(histories, items=tuple(np.append(items[:-1], (items[-1] + 7) % 30) for items in histories.items))
    first, second = (choose(mixed, evaluation_examples(world, "valid", 20)) for world in (histories, other))
    assert first == second
    (before,), (after,) = (evaluate(Ensemble(mixed, first), world, ("test",)) for world in (histories, other))
    assert (before.ranks != after.ranks).any(), "a negative control: the test ranks do change"


def test_a_member_that_searches_gives_what_it_did_not_find_the_last_score():
    *_, tiger = members(small_histories())
    tiger.eval()
    batch = make_batch([[1, 7, 13]], [""])
    items, scores = tiger.topk(batch, 10)
    found = comparable([tiger], batch)["log-probabilities"][0, 0]
    assert found[items[0]].tolist() == pytest.approx(scores[0].tolist())
    rest = np.setdiff1d(np.arange(30), items[0].numpy())
    assert found[rest].tolist() == pytest.approx([float(scores.min())] * len(rest))


def test_an_ensemble_costs_its_members_and_no_training(benchmark, tmp_path, here, capsys):
    assert reproduce(benchmark, "sasrec+popularity", "--seeds", "0,1") == 0
    assert len(here) == 2, "a member that is missing is trained"
    found = {(one.result.label, one.result.seed): one for one in kept(tmp_path)}
    whole, member, popular = (found[label, 0].result for label in ("sasrec+popularity", "sasrec", "popularity"))
    assert set(whole.members["weights"]) == {"sasrec", "popularity"}
    assert whole.members["form"] in FORMS
    assert whole.valid_ndcg_10 >= max(whole.members["alone"].values()) - 1e-6
    assert whole.parameters == member.parameters
    assert whole.seconds >= member.seconds + popular.seconds
    assert whole.processor_s >= member.processor_s
    text = markdown(kept(tmp_path))
    assert "## Ensembles" in text
    assert "| beauty | sasrec+popularity, sasrec.epochs 2" in text
    row = next(row for row in rows_of(kept(tmp_path)) if row.first.label == "sasrec+popularity")
    assert [result.seed for result in row.results] == [0, 1]
    assert "--recipes sasrec+popularity" in row.command

    path = found["sasrec+popularity", 0].path
    path.unlink()
    assert reproduce(benchmark, "sasrec+popularity") == 0
    again = next(one.result for one in kept(tmp_path) if one.path == path)
    assert len(here) == 2
    assert (again.metrics, again.members) == (whole.metrics, whole.members), "from the kept weights"
    with pytest.raises(SettingError, match="has a member twice"):
        make_experiment("beauty", "sasrec+sasrec", 0, "cpu", {})
