from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_training import SETTINGS, numbers, small_plan
from small_world import small_catalogue, small_histories

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.crops import Crop
from ray_jobs.data.examples import training_examples
from ray_jobs.data.streamed_examples import StreamedExamples, example_parts, remove_examples, write_examples
from ray_jobs.data.training_data import TrainingData
from ray_jobs.recipes.generative.tiger import Tiger
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.train import make_plan
from ray_jobs.training.loop import Hooks, fit


def _histories(users=60):
    histories = small_histories(users=users)
    times = tuple(np.arange(len(items)) + 1000 * user for user, items in enumerate(histories.items))
    return replace(histories, times=times)


def _share(histories, start):
    """Rows of the examples of the users `start` up to `start + 20`."""
    first, last = (len(training_examples(histories.part(0, end), 20, True)) for end in (start, start + 20))
    return slice(first, last)


@pytest.fixture(scope="module")
def streamed(ray_session, tmp_path_factory):
    """Some 200 examples in nine files, and the same in memory."""
    histories = _histories()
    whole = training_examples(histories, 20, True)
    whole = whole.with_preferences([f"example {n}" * (n % 3 == 0) for n in range(len(whole))])
    whole = whole.with_columns(negative=np.arange(len(whole)) % 4 == 0)
    parts = [
        training_examples(histories.part(start, start + 20), 20, True).with_columns(
            preferences=whole.preferences[share],
            negative=whole.negative[share],
        )
        for start, share in ((start, _share(histories, start)) for start in (0, 20, 40))
    ]
    folder = str(tmp_path_factory.mktemp("streamed") / "examples")
    return write_examples(folder, parts, files=9, seed=3), InMemoryExamples(whole)


def _rows(batches):
    return [
        (tuple(history[:length]), target, preference, tuple(times[:length]), asked, negative)
        for b in batches
        for history, length, target, preference, times, asked, negative in zip(
            b.history.tolist(),
            b.lengths.tolist(),
            b.targets.tolist(),
            b.preferences,
            b.times.tolist(),
            b.asked_at.tolist(),
            [False] * len(b) if b.negative is None else b.negative.tolist(),
            strict=True,
        )
    ]


def test_a_pass_has_every_example_once_in_an_order_of_its_seed(streamed):
    source, memory = streamed
    assert len(source) == len(memory)
    assert source.preferences == sum(bool(p) for p in memory.examples.preferences)
    first, again, other = (list(source.batches(4, seed)) for seed in (1, 1, 2))
    assert _rows(first) == _rows(again) != _rows(other)
    expected = sorted(_rows(memory.batches(4, None)))
    assert sorted(_rows(first)) == sorted(_rows(other)) == sorted(_rows(source.batches(4, None))) == expected
    assert len(first) == -(-len(source) // 4)
    near = sum(abs(a[3][0] - b[3][0]) < 1500 for a, b in zip(_rows(first)[1:], _rows(first), strict=False))
    assert near < len(source) / 5, "examples of a user do not stay together"


def test_workers_get_shares_of_equal_size_and_skipped_batches_are_the_first(streamed):
    source, memory = streamed
    shares = [list(source.batches(4, 5, rank, 3)) for rank in range(3)]
    sizes = [[len(batch) for batch in batches] for batches in shares]
    assert sizes[0] == sizes[1] == sizes[2]
    rows = [row for batches in shares for row in _rows(batches)]
    assert len(rows) == len(set(rows)) == len(source) // 3 * 3
    assert set(rows) <= set(_rows(memory.batches(4, None)))
    for skip in (3, 16, 21):
        assert _rows(source.batches(4, 5, 2, 3, skip=skip)) == _rows(shares[2][skip:])


def test_crops_are_those_of_the_examples_in_memory(streamed):
    source, memory = streamed
    crop = Crop(least=1, most=3)
    cropped, same = source.cropped_by(crop), InMemoryExamples(memory.examples, crop)
    found = _rows(cropped.batches(4, 7))
    assert sorted(found) == sorted(_rows(same.batches(4, 7)))
    assert found == _rows(cropped.batches(4, 7)) != _rows(cropped.batches(4, 8))
    assert found[8:] == _rows(cropped.batches(4, 7, skip=2))
    assert sorted(_rows(cropped.batches(4, None))) == sorted(_rows(memory.batches(4, None))), "in order, and whole"
    assert cropped.history_items == pytest.approx(same.history_items)
    assert source.cropped_by(None) == source


def test_training_from_files_learns_and_goes_on_inside_an_epoch(streamed):
    source, _ = streamed
    plan = small_plan(replace(SETTINGS, epochs=2))
    whole = fit(plan.build(), source, InMemoryExamples(plan.valid))
    asked = iter([False] * 4 + [True])
    state = fit(plan.build(), source, InMemoryExamples(plan.valid), hooks=Hooks(stop=lambda: next(asked)))
    assert (state.epoch, state.batch) == (0, 5)
    assert numbers(fit(plan.build(), source, InMemoryExamples(plan.valid), state=state)) == numbers(whole)
    assert whole.records[1]["loss"] < whole.records[0]["loss"]


@pytest.mark.parametrize("kind", [Tiger, SASRec])
def test_many_rows_are_streamed_and_few_are_not(tmp_path, kind):
    settings = SETTINGS if kind is Tiger else SASRecSettings(width=16)
    recommender = kind(settings, small_catalogue())
    data = TrainingData(small_catalogue(), _histories(), "")
    rows = len(recommender.training_examples(data.histories))
    folder = str(tmp_path / "shards")
    assert not isinstance(make_plan(kind.name, recommender, data, rows, folder).train, StreamedExamples)
    assert not Path(folder).exists()
    plan = make_plan(kind.name, recommender, data, rows - 1, folder)
    assert isinstance(plan.train, StreamedExamples)
    assert len(plan.train) == rows
    assert sum(len(part) for part in example_parts(recommender, data.histories, 50)) == rows
    before = [path.stat().st_mtime_ns for path in sorted(Path(folder).iterdir())]
    assert make_plan(kind.name, recommender, data, rows - 1, folder).train == plan.train
    assert [path.stat().st_mtime_ns for path in sorted(Path(folder).iterdir())] == before, "a retry uses the files"
    remove_examples(folder)
    remove_examples(folder)
    assert not Path(folder).exists()
