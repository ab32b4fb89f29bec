"""Two Ray Train workers, with both ways of spreading a model and both ways of getting at the examples."""

from dataclasses import replace

import pytest
import ray
from small_training import SETTINGS, numbers, small_fit, small_plan

from infra.settings import RaySettings
from ray_jobs.cluster import connect
from ray_jobs.data.streamed_examples import write_examples
from ray_jobs.training.ray_train import train

EXACT = replace(SETTINGS, epochs=2, dropout=0.0, optimizer="sgd", learning_rate=0.05)


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    connect()
    yield
    ray.shutdown()


def _train(plan, tmp_path, name, **given):
    settings = RaySettings(workers=2, storage=str(tmp_path / "runs"), **given)
    return train(plan, settings, run_name=name, home=str(tmp_path), stage="train_recommender").state


def test_two_workers_do_what_one_does_with_the_double_batch(tmp_path):
    alone = small_fit(small_plan(replace(EXACT, batch_size=32)))
    plan = small_plan(replace(EXACT, batch_size=16))
    for parallel in ("ddp", "fsdp"):
        state = _train(plan, tmp_path, parallel, parallel=parallel)
        for mine, theirs in zip(numbers(state), numbers(alone), strict=True):
            assert mine.pop("phase") == theirs.pop("phase")
            assert mine == pytest.approx(theirs, rel=1e-4)


def test_workers_that_take_all_processors_still_get_their_examples_from_files(tmp_path):
    plan = small_plan(replace(SETTINGS, epochs=2, batch_size=16))
    source = write_examples(str(tmp_path / "examples"), [plan.train], files=3, seed=0)
    state = _train(replace(plan, train=source), tmp_path, "streamed")
    assert state.step == 2 * -(-(len(source) // 2) // 16)
    assert state.records[1]["loss"] < state.records[0]["loss"]
