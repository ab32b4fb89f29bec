"""Words steer a model that learned from them, on planted worlds under three seeds; about half an hour on two cores."""

import os

import numpy as np
import pytest

from ray_jobs.evaluation.steering import GIVEN, NONE, RANDOM
from schemas.preference_benchmark import AXES
from tests.bench.bench_steering import run_seed

SEEDS = (0, 1, 2)
WORLD = ["--users=600", "--items=160"]


@pytest.fixture(scope="module")
def by_seed(tmp_path_factory):
    before = dict(os.environ)
    yield {
        seed: run_seed(seed, tmp_path_factory.mktemp("worlds"), WORLD, 20, 20, ["fused", "untold", "tiger"])
        for seed in SEEDS
    }
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("axis", AXES)
def test_fusion_beats_the_model_that_was_never_told_and_anothers_preference(by_seed, axis):
    fused = np.array([[found["fused"]["axes"][axis][name] for name in (GIVEN, RANDOM)] for found in by_seed.values()])
    untold = np.array([found["untold"]["axes"][axis][NONE] for found in by_seed.values()])
    for other in (untold, fused[:, 1]):
        assert fused[:, 0].mean() > other.mean()
        assert (fused[:, 0] > other).sum() >= 2


def test_a_model_without_text_has_no_lift_at_all(by_seed):
    for found in by_seed.values():
        for axis in AXES:
            assert found["tiger"]["axes"][axis]["lift_over_none"] == 0
            assert found["tiger"]["axes"][axis]["lift_over_random"] == 0
        assert all(steered["success"] == 0 for steered in found["tiger"]["steered"].values())


def test_more_of_what_is_asked_for_comes_and_less_of_what_is_rejected(by_seed):
    for kind in ("attribute", "category"):
        steered = [found["fused"]["steered"][kind] for found in by_seed.values()]
        assert np.mean([s["success"] - s["control"] for s in steered]) > 0.2
        assert np.mean([s["wanted"] - s["rejected"] for s in steered]) > 0
