from dataclasses import replace

import numpy as np
import pytest
import torch
from held_out import fitted_recommender, leaks, poisoned, vector_leaks
from small_world import small_catalogue, small_histories

from ray_jobs.data.examples import latest_preferences, training_examples
from ray_jobs.denoiser.cooccurrence import Cooccurrence
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.sequential.settings import PopularitySettings, SRACLSettings
from ray_jobs.recipes.sequential.sracl import SRACL
from schemas.recipes import of_kind

ITEMS = len(small_catalogue())


@pytest.fixture(scope="module")
def histories():
    """The small world with times a day apart, and summaries up to the last position."""
    made = small_histories()
    times = tuple(1_700_000_000 + 86_400 * np.arange(len(items)) for items in made.items)
    summaries = tuple({p: (f"Likes number {p}",) for p in range(0, len(items), 2)} for items in made.items)
    return replace(made, times=times, summaries=summaries)


@pytest.mark.parametrize("recipe", sorted(of_kind("recommender")))
def test_no_recipe_sees_what_is_held_out(recipe, histories):
    kind = recipe_class(recipe)
    settings = settings_class(recipe)()

    def fit(given):
        return fitted_recommender(lambda: kind(settings, small_catalogue()), given)

    state = fit(histories)
    assert len(state["examples.targets"]), "there is something to train on"
    assert leaks(fit, histories, ITEMS) == []


class GreedyPopularity(Popularity):
    """Counts whole histories."""

    def fit_counts(self, histories):
        self.counts.zero_()
        self.counts += torch.from_numpy(np.bincount(np.concatenate(histories.items), minlength=ITEMS))


class TrainsOnValidation(SASRec):
    """Takes histories up to the validation target."""

    def training_examples(self, histories):
        moved = replace(histories, valid_position=histories.valid_position + 1)
        return training_examples(moved, self.settings.max_history, self.every_prefix)


class ReadsTheNextReview(SASRec):
    """Conditions a target on the preferences of its own review."""

    def training_examples(self, histories):
        examples = super().training_examples(histories)
        moved = examples.with_columns(positions=examples.positions + 2)
        return examples.with_preferences(latest_preferences(histories, moved))


class ScalesByAllTimes(SASRec):
    """Normalises times by the whole range."""

    def __init__(self, settings, catalogue):
        super().__init__(settings, catalogue)
        self.register_buffer("span", torch.zeros(1), persistent=False)

    def fit_counts(self, histories):
        self.span.fill_(float(max(times.max() for times in histories.times)))


class HearsOfLaterReviews(SRACL):
    """Hears what was said after the target's review."""

    def told_examples(self, histories):
        return super().told_examples(replace(histories, valid_position=histories.valid_position + 2))


@pytest.mark.parametrize(
    ("kind", "settings", "part"),
    [
        (HearsOfLaterReviews, SRACLSettings(), "told.preferences"),
        (GreedyPopularity, PopularitySettings(), "state.counts"),
        (TrainsOnValidation, SASRecSettings(), "examples.targets"),
        (ReadsTheNextReview, SASRecSettings(), "examples.preferences"),
        (ScalesByAllTimes, SASRecSettings(), "state.span"),
    ],
)
def test_a_planted_leak_is_caught_and_named(kind, settings, part, histories):
    assert part in leaks(
        lambda given: fitted_recommender(lambda: kind(settings, small_catalogue()), given), histories, ITEMS
    )


def test_the_greedy_counts_would_have_paid(histories):
    honest, greedy = (kind(PopularitySettings(), small_catalogue()) for kind in (Popularity, GreedyPopularity))
    scores = []
    for model in (honest, greedy):
        model.fit_counts(histories)
        scores.append(evaluate(model, histories, ("test",))[0].metrics()["mrr"].mean())
    assert scores[1] > scores[0]


def test_cooccurrence_over_whole_histories_is_caught(histories):
    def honest(given):
        return {"scores": Cooccurrence(given, range(len(given)), ITEMS).scores(range(ITEMS))}

    def greedy(given):
        return honest(replace(given, valid_position=np.full(len(given), -1)))

    assert leaks(honest, histories, ITEMS) == []
    assert leaks(greedy, histories, ITEMS) == ["scores"]


def test_fits_that_differ_by_themselves_are_refused(histories):
    with pytest.raises(ValueError, match="two fits on the same histories differ in weight"):
        leaks(lambda _: {"weight": torch.rand(3)}, histories, ITEMS)


def test_poison_reaches_every_held_out_position_and_no_other(histories):
    changed = poisoned(histories, ITEMS)
    for user, (before, after) in enumerate(zip(histories.items, changed.items, strict=True)):
        start = histories.valid_position[user]
        assert (before[:start] == after[:start]).all()
        assert (before[start:] != after[start:]).all()
        assert after.min() >= 0
        assert after.max() < ITEMS
        assert (changed.times[user] != histories.times[user]).tolist() == (np.arange(len(before)) >= start).tolist()
    short = replace(histories, valid_position=np.full(len(histories), -1))
    assert all((a == b).all() for a, b in zip(poisoned(short, ITEMS).items, histories.items, strict=True))


@pytest.mark.parametrize("honest", [True, False])
def test_a_tokenizer_that_normalises_with_held_out_items_is_caught(honest):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 4)).astype(np.float32)
    training = np.arange(40) < 30

    def fit(given):
        seen = given[training] if honest else given
        inputs = (given - seen.mean(0)) / seen.std(0)
        return {"mean": seen.mean(0), "codes": (inputs > 0).astype(np.int64)[training]}

    assert vector_leaks(fit, vectors, training) == ([] if honest else ["codes", "mean"])
