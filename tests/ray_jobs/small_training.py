"""Training in the small world, without Ray."""

from dataclasses import replace

import pytest
import torch
from small_world import small_catalogue, small_histories
from torch.nn import functional

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes.generative.tiger import TigerSettings
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.tokenizers.autoencoder_training import VectorPlan
from ray_jobs.training.loop import Hooks, TrainState, fit
from ray_jobs.training.plan import Plan
from ray_jobs.training.trainable import TERMS

SETTINGS = TigerSettings(
    width=16,
    heads=2,
    head_width=8,
    inner=32,
    layers=1,
    encoder_layers=1,
    beams=10,
    epochs=4,
    batch_size=32,
    learning_rate=5e-3,
    patience=4,
)


def small_plan(settings=SETTINGS, recipe="tiger"):
    catalogue, histories = small_catalogue(), small_histories()
    examples = Plan(recipe, settings, catalogue, None, None).build().training_examples(histories)
    return Plan(recipe, settings, catalogue, examples, evaluation_examples(histories, "valid", 20))


def small_fit(plan, **given):
    torch.set_num_threads(1)
    return fit(plan.build(), InMemoryExamples(plan.train), InMemoryExamples(plan.valid), **given)


def fit_vectors(recipe, vectors, state=None, **given):
    """The state after training `recipe`, an autoencoder, on float32[N, D]."""
    plan = VectorPlan(recipe, vectors)
    module = plan.build()
    return fit(module, *plan.sources(module), state=state, **given)


class Killed(Exception):
    pass


def killed_after(cut, folder, run, due=lambda: True):
    """The checkpoint of a run (`run` takes the hooks) that is killed after step `cut`."""

    def save(state):
        torch.save(vars(state), folder / "state.pt")
        if state.step == cut:
            raise Killed

    with pytest.raises(Killed):
        run(hooks=Hooks(on_checkpoint=save, due=due))
    return TrainState(**torch.load(folder / "state.pt", weights_only=True))


def numbers(state):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in state.records]


class TwoLosses(SASRec):
    """Predicts the next item, and keeps the table of items small; a mean over positions, not over examples."""

    def loss(self, batch):
        goals = batch.history.roll(-1, dims=1).scatter(1, (batch.lengths - 1)[:, None], batch.targets[:, None])
        real = torch.arange(goals.shape[1]) < batch.lengths[:, None]
        next_item = functional.cross_entropy((self.states(batch) @ self.items.weight[1:].T)[real], goals[real])
        size = self.items.weight.square().mean()
        return {"loss": next_item + 0.1 * size, "next_item": next_item, "size": size, TERMS: real.sum()}


PLAIN = SASRecSettings(width=16, epochs=2, dropout=0.0, batch_size=32, learning_rate=1e-2)


def two_losses(settings=PLAIN):
    plan = small_plan(settings, "sasrec")
    torch.manual_seed(0)
    return TwoLosses(settings, plan.catalogue), InMemoryExamples(plan.train), InMemoryExamples(plan.valid)


def fit_two(**changes):
    model, train, valid = two_losses(replace(PLAIN, **changes))
    return fit(model, train, valid), model
