"""Crops of histories: what they are made of, and that seed and items alone decide them."""

from dataclasses import replace

import numpy as np
import pytest
from small_training import SETTINGS, numbers, small_plan
from small_world import small_catalogue, small_histories

from infra.errors import SettingError
from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.crops import Crop
from ray_jobs.data.examples import evaluation_examples, make_examples, training_examples
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.generative.settings import MenderTokSettings
from ray_jobs.recipes.sequential.settings import BERT4RecSettings, HSTUSettings, IDNPSettings, SASRecSettings
from ray_jobs.training.loop import Hooks, fit

CROP = Crop(least=2, most=4)


def walks(users=200, longest=9):
    """Histories that count up from a start of their own, one hour an item, and the next number as the target."""
    rng = np.random.default_rng(0)
    rows = [np.arange(start, start + int(length)) for start, length in enumerate(rng.integers(0, longest + 1, users))]
    ends = [start + len(row) for start, row in enumerate(rows)]
    times = [3600 * row for row in rows]
    columns = {"history": rows, "targets": ends, "times": times, "asked_at": [3600 * end for end in ends]}
    return make_examples(users, {**columns, "positions": [len(row) for row in rows], "users": range(users)})


def test_a_crop_is_a_stretch_of_the_history_and_the_item_after_it():
    whole = walks()
    for seed in range(20):
        cut = CROP.cut(whole, seed)
        least, lengths = np.minimum(2, whole.lengths), cut.lengths
        assert ((lengths >= least) & (lengths <= np.minimum(4, whole.lengths))).all()
        for row in range(len(cut)):
            history = cut.history(row)
            assert (np.diff(history) == 1).all()
            assert cut.targets[row] == (history[-1] + 1 if len(history) else whole.targets[row])
        assert (cut.times == 3600 * cut.items).all()
        assert (cut.asked_at == 3600 * cut.targets).all()
        assert (cut.positions + cut.users == cut.targets).all(), "walks start at the number of their user"


def test_ends_and_then_starts_are_uniform():
    longest = walks().at(np.array([walks().lengths.argmax()]))
    drawn = [CROP.spans(longest, seed) for seed in range(800)]
    spans = [(int(start[0]), int(length[0])) for start, length in drawn]
    length = int(longest.lengths[0])
    for end in range(2, length + 1):
        starts = [start for start, length in spans if start + length == end]
        assert len(starts) / 800 == pytest.approx(1 / (length - 1), abs=0.04)
        assert set(starts) == set(range(max(0, end - 4), end - 1))


def test_seed_and_items_alone_decide():
    whole = walks()
    first, again, other = (CROP.spans(whole, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    rows = np.random.default_rng(0).permutation(len(whole))[:50]
    assert np.array_equal(CROP.spans(whole.at(rows), 1), np.array(first)[:, rows])
    for workers in (1, 3):
        parts = [InMemoryExamples(whole, CROP).batches(8, 5, rank, workers) for rank in range(workers)]
        batches = [batch for part in parts for batch in part]
        ends = sorted(zip(*(values for values in _ends(batches)), strict=True))
        assert set(ends) <= set(zip(*_ends([*InMemoryExamples(CROP.cut(whole, 5)).batches(8, None)]), strict=True))
        assert len(ends) == len(whole) // workers * workers
    plain = InMemoryExamples(whole, CROP).batches(8, None)
    assert [batch.targets.tolist() for batch in plain] == [
        batch.targets.tolist() for batch in InMemoryExamples(whole).batches(8, None)
    ], "validation is not cropped"


def _ends(batches):
    """Length of each history, and target."""
    return [n for batch in batches for n in batch.lengths.tolist()], [n for b in batches for n in b.targets.tolist()]


def test_the_expected_number_of_items_is_the_mean_of_epochs():
    source = InMemoryExamples(walks(), CROP)
    seen = [len(CROP.cut(source.examples, seed).items) for seed in range(200)]
    assert source.history_items == pytest.approx(np.mean(seen), abs=4 * np.std(seen) / 200**0.5)
    assert InMemoryExamples(walks()).history_items == len(walks().items)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("sasrec", SASRecSettings(width=16, weigh="positions")),
        ("hstu", HSTUSettings(width=16, time_bias=False)),
        ("bert4rec", BERT4RecSettings(width=16)),
        ("idnp", IDNPSettings(width=16, timed=False)),
        ("tiger", SETTINGS),
    ],
)
def test_training_on_crops_goes_on_inside_an_epoch(recipe, settings):
    settings = replace(settings, crop=1, epochs=2, batch_size=16, max_history=3)
    histories = small_histories()
    plan = replace(small_plan(settings, recipe), valid=evaluation_examples(histories, "valid", 3))
    model = plan.build()
    train, valid = plan.sources(model)
    whole = training_examples(histories, 100, every_prefix=False)
    assert np.array_equal(plan.train.items, whole.items), "also what lies before the newest max_history items"
    assert all(batch.history.shape[1] <= 3 for batch in train.batches(16, 0))
    full = fit(model, train, valid)
    asked = iter([False] * 2 + [True])
    cut = fit(plan.build(), train, valid, hooks=Hooks(stop=lambda: next(asked)))
    assert (cut.epoch, cut.batch) == (0, 3)
    again = fit(plan.build(), train, valid, state=cut)
    assert numbers(again) == numbers(full)
    assert all((again.current[name] == tensor).all() for name, tensor in full.current.items())
    assert len(train) == len(histories), "an epoch has one crop of each user"


def test_a_crop_that_cannot_be_is_refused():
    with pytest.raises(SettingError, match=r"sasrec\.crop is 60: a crop has at most sasrec\.max_history items, 50"):
        SASRecSettings(crop=60)
    with pytest.raises(SettingError, match=r"mendertok\.crop is 3, but must be 0"):
        MenderTokSettings(crop=3)
    assert recipe_class("sasrec")(SASRecSettings(width=16), small_catalogue()).crop is None
