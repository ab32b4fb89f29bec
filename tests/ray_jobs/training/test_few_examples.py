"""Less data than workers: the workers that would have nothing to do are not started."""

import pytest
import torch

from infra.settings import RaySettings
from ray_jobs.denoiser.tuning import TuningPlan
from ray_jobs.tokenizers.autoencoder_training import InMemory
from ray_jobs.training import ray_train
from ray_jobs.training.plan import Plan


class Asked(Exception):
    pass


@pytest.mark.parametrize(("examples", "workers"), [(3, 3), (8, 8), (100, 8)])
def test_no_more_workers_than_examples(monkeypatch, tmp_path, examples, workers):
    def require(settings, wait_s):
        raise Asked(settings.workers)

    monkeypatch.setattr(ray_train, "finished_state", lambda *_: None)
    monkeypatch.setattr(ray_train, "require_resources", require)
    plans = [
        Plan("sasrec", None, None, range(examples), None),
        TuningPlan("hub:x", None, tuple(range(examples)), 0),
    ]
    for plan in plans:
        with pytest.raises(Asked, match=f"^{workers}$"):
            ray_train.train(plan, RaySettings(workers=8), run_name="r", home=str(tmp_path), stage="train")


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_worker_has_as_many_rows_of_a_small_set(world):
    rows = torch.arange(2.0)[:, None]
    shares = [[len(batch) for batch in InMemory(rows).batches(4, 0, rank, world)] for rank in range(world)]
    assert shares == [shares[0]] * world
    assert shares[0]
