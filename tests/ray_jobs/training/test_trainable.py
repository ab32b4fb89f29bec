"""How a new kind of model is trained: a module with a loss and phases, and the hooks that it may fill."""

import math
from functools import partial

import pytest
import torch
from ray.train import Checkpoint
from small_training import killed_after, numbers
from torch import nn

from infra.errors import SettingError
from ray_jobs.training.curves import metric_rows
from ray_jobs.training.loop import Hooks, TrainState, fit
from ray_jobs.training.phases import Phase
from ray_jobs.training.ray_train import STATE_FILE, load_state
from ray_jobs.training.trainable import Metric, Trainable, Update
from schemas.artifact_seal import seal_folder
from schemas.errors import DataError

ONE = (Phase(name="only", epochs=3, learning_rate=0.05),)


class Line(Trainable):
    """All that is needed: a seed, a batch size, a loss and phases. Nothing is judged; dropout draws at random."""

    seed, batch_size = 3, 4

    def __init__(self, phases=ONE):
        super().__init__()
        self.inner, self.outer, self.given = nn.Linear(2, 8), nn.Linear(8, 1), phases

    def error(self, points):
        hidden = nn.functional.dropout(self.inner(points[:, :2]), 0.2, self.training)
        return (self.outer(hidden)[:, 0] - points[:, 2]).square().mean()

    def loss(self, batch):
        return {"loss": self.error(batch)}

    def phases(self):
        return self.given


class Points:
    """Where the batches come from: rows of (x, y, x - 2 y)."""

    def __init__(self, count=18, seed=0):
        x = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
        self.rows = torch.cat([x, x[:, :1] - 2 * x[:, 1:]], dim=1)

    def __len__(self):
        return len(self.rows)

    def batches(self, batch_size, seed, rank=0, world=1, skip=0):
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return iter(self.rows[order[: len(self) // world * world][rank::world]].split(batch_size)[skip:])


def made(kind, *given):
    torch.manual_seed(1)
    return kind(*given)


def resumed(tmp_path, cut, kind, *given, **more):
    """The state of a run that was killed after step `cut` and begun again in a fresh process."""
    state = killed_after(cut, tmp_path, partial(fit, made(kind, *given), Points(), **more))
    return fit(made(kind, *given), Points(), state=state, **more)


def assert_same(state, whole):
    assert numbers(state) == numbers(whole)
    assert set(state.trained) == set(whole.trained)
    assert all(torch.equal(tensor, state.trained[name]) for name, tensor in whole.trained.items())


def test_a_module_with_a_loss_is_trained_and_goes_on_after_any_step(tmp_path):
    kept = []
    whole = fit(made(Line), Points(), hooks=Hooks(on_checkpoint=lambda state: kept.append(state.step)))
    assert kept == [5, 10, 15], "a checkpoint an epoch"
    assert set(whole.records[0]) == {"epoch", "phase", "step", "learning_rate", "loss", "seconds"}
    assert whole.records[-1]["loss"] < whole.records[0]["loss"]
    assert whole.trained is whole.current, "the last weights count where nothing is judged"
    for cut in range(1, 15):
        assert_same(resumed(tmp_path, cut, Line), whole)


class Judged(Line):
    """Judged by its error on other points; a metric is larger where it is better."""

    metric = Metric("valid_fit", "fit")

    def judge(self, source, workers=None):
        self.eval()
        with torch.no_grad():
            return -float(self.error(source.rows))


def test_a_kind_is_judged_by_a_metric_of_its_own():
    phase = Phase(name="only", epochs=60, learning_rate=0.5, schedule="constant", patience=3)
    notes = []
    model = made(Judged, (phase,))
    state = fit(model, Points(), Points(12, seed=1), hooks=Hooks(notify=lambda done, total, note: notes.append(note)))
    scores = [record["valid_fit"] for record in state.records]
    assert max(scores) < 0
    assert state.best_score == max(scores) == scores[state.best_epoch - 1]
    assert state.epoch == state.best_epoch + 3 < 60
    assert f"fit {scores[-1]:.4f}" in notes[-1]
    assert [value for name, value, _ in metric_rows(state.records, ()) if name == "valid_fit"] == scores
    model.load_trained_state(state.trained)
    assert model.judge(Points(12, seed=1)) == max(scores)


def test_a_score_that_is_no_number_ends_training_unless_an_epoch_before_has_one(monkeypatch):
    scores = iter([math.nan])
    monkeypatch.setattr(Judged, "judge", lambda self, source, workers=None: next(scores))
    with pytest.raises(SettingError, match="phase 'only': valid_fit of epoch 1 is nan"):
        fit(made(Judged), Points(), Points(12))
    scores = iter([-2.0, math.nan, -1.0])
    assert fit(made(Judged), Points(), Points(12)).best_epoch == 3


class Prepared(Line):
    """Draws a bias as an epoch begins, which the losses of that epoch need; halves a weight as it ends."""

    def __init__(self, phases=ONE):
        super().__init__(phases)
        self.bias, self.begun = torch.zeros(()), []

    def epoch_begins(self, epoch, source):
        self.bias, self.begun = torch.rand(()) + len(source), [*self.begun, epoch]
        return False

    def epoch_state(self):
        return {"bias": self.bias}

    def load_epoch_state(self, state):
        self.bias = state["bias"]

    def loss(self, batch):
        return {"loss": self.error(batch) + (self.bias - self.outer.bias.sum()).square()}

    def epoch_ends(self, epoch, source, optimizer):
        with torch.no_grad():
            self.outer.weight /= 2
        return {"halved": 1 if optimizer.state[self.outer.weight] else 0}


def test_what_an_epoch_begins_with_survives_a_resume_and_what_it_ends_with_is_recorded(tmp_path):
    model = made(Prepared)
    whole = fit(model, Points())
    assert model.begun == [1, 2, 3]
    assert [record["halved"] for record in whole.records] == [1, 1, 1]
    biases = []
    untouched = made(Prepared)
    untouched.epoch_ends = lambda *_: {}
    assert fit(untouched, Points()).records[1]["loss"] != whole.records[1]["loss"]
    for cut in (3, 5, 9):
        assert_same(resumed(tmp_path, cut, Prepared), whole)
        kept = torch.load(tmp_path / "state.pt", weights_only=True)["epoch_state"]
        biases += [float(kept["bias"])] if kept else []
        again = made(Prepared)
        fit(again, Points(), state=TrainState(**torch.load(tmp_path / "state.pt", weights_only=True)))
        assert again.begun == {3: [2, 3], 5: [2, 3], 9: [3]}[cut], "not again inside an epoch"
    assert len(set(biases)) == 2, "two of the cuts are inside an epoch"


class Indexed(Line):
    """Needs something of all examples at every step."""

    begun = 0

    def training_begins(self, source):
        self.mean, self.begun = source.rows.mean(dim=0), self.begun + 1

    def loss(self, batch):
        return {"loss": self.error(batch - self.mean)}


def test_what_training_begins_with_is_found_again_by_a_run_that_resumes(tmp_path):
    model = made(Indexed)
    whole = fit(model, Points())
    assert model.begun == 1
    for cut in (3, 5):
        assert_same(resumed(tmp_path, cut, Indexed), whole)
    assert set(whole.trained) == set(made(Line).state_dict()), "it is no part of the model"


class Adversaries(Line):
    """Two updates a step: the inner layer lowers the error, then the outer one raises it."""

    def error(self, points):
        return (self.outer(self.inner(points[:, :2]))[:, 0] - points[:, 2]).square().mean()

    def loss(self, batch):
        error = self.error(batch)
        return {"loss": error, "against": -error}

    def updates(self, batch):
        return (Update(trainable=("inner.*",)), Update(trainable=("outer.*",), losses={"against": 1.0}))


def test_a_step_of_two_updates_is_two_steps_of_two_parts():
    phase = Phase(name="x", epochs=1, learning_rate=0.1, schedule="constant", optimizer="sgd", betas=(0, 0))
    model, other = made(Adversaries, (phase,)), made(Adversaries)
    state = fit(model, Points(4))
    losses = []
    for part, sign in ((other.inner, 1), (other.outer, -1)):
        loss = sign * other.error(Points(4).rows)
        gradients = torch.autograd.grad(loss, list(part.parameters()))
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        with torch.no_grad():
            for parameter, gradient in zip(part.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient * min(1.0, 1 / float(norm))
        losses.append(float(loss.detach()))
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(state.trained[name], tensor)
    assert [state.records[0][name] for name in ("loss", "loss_2")] == pytest.approx(losses)
    assert state.curve[0]["gradient_norm_2"] == pytest.approx(float(norm), rel=1e-4)


def test_an_update_that_names_no_parameter_is_refused(monkeypatch):
    monkeypatch.setattr(Adversaries, "updates", lambda self, batch: (Update(trainable=("innner.*",)),))
    with pytest.raises(SettingError, match=r"an update: trainable='innner\.\*' matches none of the 4 .*inner\.weight"):
        fit(made(Adversaries), Points(4))
    one = Phase(name="x", trainable=("inner.*",), epochs=1, learning_rate=0.1)
    monkeypatch.setattr(Adversaries, "updates", lambda self, batch: (Update(trainable=("outer.*",)), Update()))
    assert fit(made(Adversaries, (one,)), Points(4)).finished, "a phase may leave out what an update names"


class Anchored(Line):
    """Stays near what the phase before made of it."""

    def loss(self, batch):
        if self.reference is None:
            return {"loss": self.error(batch), "distance": torch.zeros(())}
        pairs = zip(self.parameters(), self.reference.parameters(), strict=True)
        distance = torch.stack([(mine - frozen).square().sum() for mine, frozen in pairs]).sum()
        return {"loss": self.error(batch) + distance, "distance": distance.detach()}


def test_a_phase_may_have_a_frozen_copy_of_what_it_found(tmp_path):
    phases = (
        Phase(name="first", epochs=1, learning_rate=0.05),
        Phase(name="second", epochs=2, learning_rate=0.05, reference=True),
    )
    found = {}

    class Watched(Anchored):
        def epoch_begins(self, epoch, source):
            found[epoch] = {name: tensor.clone() for name, tensor in self.state_dict().items()}
            return False

    model = made(Watched, phases)
    whole = fit(model, Points())
    assert whole.records[0]["distance"] == 0
    assert whole.records[2]["distance"] > 0
    assert all(torch.equal(found[2][name], tensor) for name, tensor in model.reference.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.reference.parameters())
    assert set(whole.trained) == set(made(Line).state_dict()), "it is no part of the model"
    for cut in (5, 7, 12):
        assert_same(resumed(tmp_path, cut, Watched, phases), whole)


class Rewarded(Line):
    """Learns from what it makes itself: noisy answers, each with a reward."""

    def __init__(self, phases=ONE):
        super().__init__(phases)
        self.with_gradient = []

    def roll_out(self, batch):
        answers = self.outer(self.inner(batch[:, :2]))[:, 0]
        answers = answers + torch.randn(len(answers))
        self.with_gradient.append(answers.requires_grad)
        return torch.cat([batch[:, :2], answers[:, None], -(answers - batch[:, 2]).abs()[:, None]], dim=1)

    def loss(self, batch):
        reward = (batch[:, 3] - batch[:, 3].mean()).exp()
        own = self.outer(self.inner(batch[:, :2]))[:, 0]
        return {"loss": (reward * (own - batch[:, 2]).square()).mean(), "reward": batch[:, 3].mean()}


def test_a_model_learns_from_its_own_samples_and_their_rewards(tmp_path):
    phases = (Phase(name="only", epochs=60, learning_rate=0.03),)
    model = made(Rewarded, phases)
    whole = fit(model, Points())
    assert not any(model.with_gradient)
    rewards = [record["reward"] for record in whole.records]
    assert sum(rewards[-10:]) > sum(rewards[:10])
    assert_same(resumed(tmp_path, 7, Rewarded, phases), whole)


def test_a_checkpoint_of_an_earlier_format_is_refused_with_what_to_do(tmp_path):
    for name, content in {
        "autoencoder": {"fingerprint": "f", "epoch": 3, "model": {}, "optimizer": {}, "records": []},
        "denoiser": {"optimizer": {"state": {}, "param_groups": []}, "finished": False},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        torch.save(content, folder / STATE_FILE)
        seal_folder(folder)
        with pytest.raises(DataError, match=r"an earlier release wrote .*delete the folder of this run"):
            load_state(Checkpoint.from_directory(folder))
