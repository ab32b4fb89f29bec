import os
import pickle
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from small_training import PLAIN, fit_two, two_losses
from test_trainable import Line, Points
from torch import multiprocessing, nn

from ray_jobs.training.loop import Hooks, TrainState, fit
from ray_jobs.training.workers import SINGLE_WORKER, Workers

HALF = replace(PLAIN, batch_size=16, optimizer="sgd", learning_rate=0.1)
CASES = {
    "ddp": ("ddp", HALF),
    "ddp in parts": ("ddp", replace(HALF, accumulate=3)),
    "fsdp": ("fsdp", HALF),
    "fsdp in parts": ("fsdp", replace(HALF, accumulate=3)),
    "fsdp in phases": ("fsdp", replace(HALF, phases=({"trainable": ("items.*",)}, {"losses": {"next_item": 1.0}}))),
    "ddp in phases": ("ddp", replace(HALF, phases=({"trainable": ("items.*",)}, {"losses": {"next_item": 1.0}}))),
}


class Restless(Line):
    """Sets its bias before the first epoch and after the others, each worker to a number of its own."""

    additive = True

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def epoch_begins(self, epoch, source):
        if epoch == 1:
            nn.init.constant_(self.outer.bias, 5 + self.rank)
        return epoch == 1

    def epoch_ends(self, epoch, source, optimizer):
        if epoch < 2:
            return {}
        nn.init.constant_(self.outer.bias, 5 + self.rank)
        return {"drawn": 1}


def _one_of_two(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name, (parallel, settings) in CASES.items():
        workers = Workers(rank, 2, parallel)
        results[name] = fit(*two_losses(settings), workers=workers)
        state = fit(*two_losses(settings), workers=workers, hooks=Hooks(stop=lambda: True))
        state = TrainState(**pickle.loads(pickle.dumps(vars(state))))
        results[f"{name}, cut"] = fit(*two_losses(settings), workers=workers, state=state)
        if rank == 0 and parallel == "fsdp" and not settings.phases:
            results[f"{name}, gone on alone"] = fit(*two_losses(replace(settings, batch_size=32)), state=state)
    results["hooks"] = fit(Restless(rank), Points(), workers=Workers(rank, 2))
    model, _, valid = two_losses(replace(PLAIN, evaluation_batch_size=20))
    results["score"] = model.judge(valid, Workers(rank, 2))
    torch.save({n: r if isinstance(r, float) else vars(r) for n, r in results.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    multiprocessing.spawn(_one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _losses(records):
    return [
        value for r in records for name, value in r.items() if name in ("loss", "next_item", "size", "valid_ndcg_10")
    ]


@pytest.mark.parametrize("case", CASES)
def test_two_workers_do_what_one_does_with_the_double_batch(results, case):
    one, _ = fit_two(**{**vars(HALF), "batch_size": 32, "phases": CASES[case][1].phases})
    for rank in range(2):
        state = results[rank][case]
        assert state["step"] == one.step
        assert _losses(state["records"]) == pytest.approx(_losses(one.records), rel=1e-5)
        for name, tensor in one.current.items():
            torch.testing.assert_close(state["current"][name], tensor, rtol=1e-4, atol=1e-6)
    other, _ = fit_two(**vars(HALF))
    assert _losses(other.records) != pytest.approx(_losses(one.records), rel=1e-4), "half the batch is another run"


@pytest.mark.parametrize("case", CASES)
def test_workers_go_on_where_they_were_cut(results, case):
    whole, cut = results[0][case], results[0][f"{case}, cut"]
    assert _losses(cut["records"]) == _losses(whole["records"])
    assert all(torch.equal(whole["best"][name], cut["best"][name]) for name in whole["best"])


def test_what_split_workers_kept_one_worker_can_go_on_with(results):
    assert _losses(results[0]["fsdp, gone on alone"]["records"]) == pytest.approx(
        _losses(results[0]["fsdp"]["records"]), rel=1e-5
    )


def test_workers_share_the_evaluation(results):
    model, _, valid = two_losses(PLAIN)
    score = model.judge(valid, SINGLE_WORKER)
    assert 0 < score < 1
    assert [r["score"] for r in results] == pytest.approx([score, score], rel=1e-9)


def test_what_an_epoch_changes_is_what_rank_0_changed(results):
    first, second = (result["hooks"] for result in results)
    assert first["current"]["outer.bias"] == 5
    assert all(torch.equal(tensor, second["current"][name]) for name, tensor in first["current"].items())
    losses = [[(record["loss"], record.get("drawn")) for record in state["records"]] for state in (first, second)]
    assert losses[0] == losses[1]
    assert [drawn for _, drawn in losses[0]] == [None, 1, 1]
