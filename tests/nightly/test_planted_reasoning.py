"""Latent reasoning costs nothing on a planted world, and the steps of ERL differ because its loss says so.

Two threads run through every history, so that a backbone alone finds what can be found: this tests that reasoning does
no harm, not that it helps. Without vectors of the steps, and without a loss for the early ones, results are the same
within noise; no test claims otherwise.
"""

from dataclasses import replace

import numpy as np
import planted_worlds as worlds
import pytest
import torch
from test_planted_recommenders import SEEDS, SMALL, assert_better, one_thread, score  # noqa: F401  (a fixture)

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes.sequential.rearec import ReaRec, ReaRecSettings
from ray_jobs.training.loop import fit


def trained(settings, world):
    """The model after training, early stopping on validation."""
    torch.manual_seed(settings.seed)
    model = ReaRec(settings, worlds.catalogue(60))
    valid = InMemoryExamples(evaluation_examples(world, "valid", settings.max_history))
    model.load_trained_state(fit(model, InMemoryExamples(model.training_examples(world)), valid).best)
    return model.eval()


def cosine_between_steps(model, world):
    """Mean over users and pairs of different steps, at the test position."""
    source = InMemoryExamples(evaluation_examples(world, "test", model.settings.max_history))
    (batch,), seen = source.batches(len(source), None), []
    with torch.no_grad():
        steps = torch.nn.functional.normalize(model.reason(model.backbone.states(batch, seen), seen), dim=-1)
    newest = steps[:, torch.arange(len(batch)), model.backbone.asked(batch.lengths)]
    cosines = torch.einsum("ibd,jbd->ij", newest, newest) / len(batch)
    return float(cosines[~torch.eye(len(cosines), dtype=torch.bool)].mean())


@pytest.mark.parametrize("reasoning", ["erl", "prl"])
def test_reasoning_is_no_worse_than_its_backbone(reasoning):
    with_steps, without = [], []
    for seed in SEEDS:
        world = worlds.threads(seed)
        settings = ReaRecSettings(**SMALL, epochs=40, dropout=0.1, reasoning=reasoning, seed=seed)
        with_steps.append(score(trained(settings, world), world))
        without.append(score(trained(replace(settings, steps=0), world), world))
    assert np.mean(with_steps) >= 0.99 * np.mean(without), (with_steps, without)


def test_steps_of_erl_are_alike_without_their_divergence():
    alike, apart = [], []
    for seed in SEEDS:
        world = worlds.threads(seed)
        settings = ReaRecSettings(**SMALL, epochs=40, dropout=0.1, reasoning="erl", seed=seed)
        apart.append(cosine_between_steps(trained(settings, world), world))
        alike.append(cosine_between_steps(trained(replace(settings, divergence_weight=0.0), world), world))
    assert_better(alike, apart)
