import os
import signal
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from ray import cloudpickle
from small_training import SETTINGS, killed_after, numbers, small_fit, small_plan

from infra.errors import SettingError
from infra.progress import read_progress
from infra.settings import RaySettings
from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.recipes.sequential.sasrec import SASRecSettings
from ray_jobs.training.curves import metric_rows
from ray_jobs.training.loop import Hooks, fit
from ray_jobs.training.ray_train import finished_state, require_resources, train


@pytest.mark.parametrize(("recipe", "settings"), [("tiger", SETTINGS), ("sasrec", SASRecSettings(width=16, epochs=4))])
def test_two_runs_of_one_seed_are_equal_and_another_seed_differs(recipe, settings):
    first, second = small_fit(small_plan(settings, recipe)), small_fit(small_plan(settings, recipe))
    assert numbers(first) == numbers(second)
    for name, tensor in first.best.items():
        assert torch.equal(tensor, second.best[name])
    other = small_fit(small_plan(replace(settings, seed=1), recipe))
    assert numbers(other)[0]["loss"] != numbers(first)[0]["loss"]
    assert first.records[-1]["loss"] < first.records[0]["loss"]


@pytest.mark.parametrize("cut", [1, 7, 10])
def test_a_run_cut_after_any_step_goes_on_as_if_it_had_not_been(tmp_path, cut):
    plan = small_plan(replace(SETTINGS, epochs=2))
    whole = small_fit(plan)
    steps = whole.step // 2
    assert steps == 7, "the cuts are after the first step, at an epoch's end and inside an epoch"

    state = killed_after(cut, tmp_path, partial(small_fit, plan))
    assert (state.epoch, state.batch) == divmod(cut, steps)
    taken = []
    resumed = small_fit(plan, state=state, hooks=Hooks(on_step=taken.append))
    assert taken == list(range(cut + 1, whole.step + 1)), "no step is taken twice"
    assert numbers(resumed) == numbers(whole)
    assert all(torch.equal(whole.best[name], resumed.best[name]) for name in whole.best)


@pytest.mark.parametrize("every", [1, 2])
def test_a_run_that_is_stopped_again_and_again_ends_like_one_that_is_not(every):
    plan = small_plan(replace(SETTINGS, epochs=2, evaluate_every=every))
    whole, state, slices = small_fit(plan), None, 0
    while state is None or not state.finished:
        left = iter([False, False, True])
        state = small_fit(plan, state=state, hooks=Hooks(stop=lambda left=left: next(left)))
        slices += 1
    assert slices == 5, "three steps each, and an epoch's end is looked at as well"
    assert numbers(state) == numbers(whole)
    assert all(torch.equal(whole.best[name], state.best[name]) for name in whole.best)


def test_training_stops_when_validation_does_not_improve_and_keeps_the_best():
    plan = small_plan(replace(SETTINGS, epochs=30, patience=2, learning_rate=2e-2))
    state = small_fit(plan)
    scores = [record["valid_ndcg_10"] for record in state.records]
    assert len(scores) < 30
    assert state.best_epoch == scores.index(max(scores)) + 1 == len(scores) - 2
    assert state.finished
    best = plan.build()
    best.load_trained_state(state.best)
    assert best.judge(InMemoryExamples(plan.valid)) == pytest.approx(max(scores), abs=1e-6)
    again = fit(plan.build(), InMemoryExamples(plan.train), InMemoryExamples(plan.valid), state=state)
    assert len(again.records) == len(scores), "a finished state is not trained on"


def test_the_rate_warms_up_and_ends_at_zero():
    settings = replace(SETTINGS, warmup=0.1, learning_rate=1.0)
    rates = [settings.phase().rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_paused_at_first_and_killed_in_mid_epoch_ends_like_the_uninterrupted_one(ray_session, tmp_path):
    plan = small_plan(replace(SETTINGS, epochs=2))
    expected = small_fit(plan)
    journal = tmp_path / "steps"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def kill_once(step):
        with journal.open("a") as file:
            print(step, file=file)
        if step == 11 and journal.read_text().splitlines().count("11") == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def observe(rows):
        with (tmp_path / "observed").open("a") as file:
            file.writelines(f"{name} {step}\n" for name, _, step in rows)

    settings = RaySettings(storage=str(tmp_path / "runs"), checkpoint_s=0)
    given = {"run_name": "killed-once", "home": str(tmp_path), "stage": "train_recommender", "observer": observe}
    first = train(plan, settings, on_step=kill_once, time_budget_s=0, **given)
    assert not first.state.finished
    assert not first.reused
    assert (first.state.epoch, first.state.step, first.state.batch) == (0, 1, 1)

    observed = tmp_path / "observed"
    names = ("loss", "gradient_norm", "learning_rate", "examples_per_s")
    assert set(observed.read_text().splitlines()) == {f"train.{name} 1" for name in names}, "seen before the end"

    outcome = train(plan, settings, on_step=kill_once, **given)
    assert set(observed.read_text().splitlines()) == {
        f"{name} {step}" for name, _, step in metric_rows(outcome.state.records, outcome.state.curve)
    }
    taken = [int(line) for line in journal.read_text().splitlines()]
    again = taken[taken.index(11) + 1 :]
    assert taken[:11] == list(range(1, 12))
    assert 8 < again[0] <= 11, "the second epoch goes on after its last checkpoint, not from its beginning"
    assert again == list(range(again[0], expected.step + 1))
    assert not outcome.reused
    assert outcome.state.finished
    assert numbers(outcome.state) == numbers(expected)
    assert all(torch.equal(expected.best[name], outcome.state.best[name]) for name in expected.best)
    done, total, note = read_progress(str(tmp_path), "train_recommender", 0.0)
    assert done == total == expected.step
    assert "valid NDCG@10" in note

    again = train(plan, settings, **given)
    assert again.reused, "a finished name is not trained a second time, and not a success of zero steps"
    assert again.state.step == expected.step > 0
    assert finished_state(settings.storage, "another-name") is None


def test_what_the_cluster_cannot_hold_is_refused_with_the_numbers(ray_session):
    with pytest.raises(SettingError, match=r"3 worker\(s\) with 2 CPU each, and the Ray cluster has 2 CPU and 0 GPU"):
        require_resources(RaySettings(workers=3, cpus_per_worker=2), wait_s=0)
    with pytest.raises(SettingError, match="1 GPU each"):
        require_resources(RaySettings(use_gpu=True), wait_s=0)
