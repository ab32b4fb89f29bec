"""What latent reasoning gains and costs: three seeds, and a control that must lose; see `test_planted_recommenders`.

No test claims that the vectors of the steps, or the loss of PRL's early steps, are needed: on these worlds results
without them are the same within noise.
"""

from dataclasses import replace

import numpy as np
import planted_worlds as worlds
import pytest
import torch
from test_planted_recommenders import SEEDS, SMALL, assert_better, one_thread  # noqa: F401  (a fixture)

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.recipes.sequential.rearec import ReaRec, ReaRecSettings
from ray_jobs.training.loop import fit

THREADS = ReaRecSettings(**SMALL, epochs=40, dropout=0.1)
LOOPS = ReaRecSettings(**SMALL | {"patience": 20}, epochs=54, dropout=0.1, layers=1, validate_unseen=False)
"""In loops people choose items again."""


def trained(settings, seed, world):
    """The model after training, early stopping on validation."""
    torch.manual_seed(seed)
    model = ReaRec(replace(settings, seed=seed), worlds.catalogue(60))
    valid = InMemoryExamples(evaluation_examples(world, "valid", settings.max_history))
    model.load_trained_state(fit(model, InMemoryExamples(model.training_examples(world)), valid).best)
    return model.eval()


def scores(settings, make):
    """NDCG@10 on the test split by seed."""
    found = []
    for seed in SEEDS:
        world = make(seed)
        (ranked,) = evaluate(trained(settings, seed, world), world, ("test",), exclude_seen=settings.validate_unseen)
        found.append(float(ranked.metrics()["ndcg_10"].mean()))
    return found


def cosines(settings, make):
    """Mean cosine between different steps at the test position, by seed."""
    found = []
    for seed in SEEDS:
        world, seen = make(seed), []
        model = trained(settings, seed, world)
        source = InMemoryExamples(evaluation_examples(world, "test", settings.max_history))
        (batch,) = source.batches(len(source), None)
        with torch.no_grad():
            steps = torch.nn.functional.normalize(model.reason(model.backbone.states(batch, seen), seen), dim=-1)
        newest = steps[:, torch.arange(len(batch)), model.backbone.asked(batch.lengths)]
        pairs = torch.einsum("ibd,jbd->ij", newest, newest) / len(batch)
        found.append(float(pairs[~torch.eye(len(pairs), dtype=torch.bool)].mean()))
    return found


@pytest.mark.parametrize("reasoning", ["erl", "prl"])
def test_reasoning_is_no_worse_where_the_backbone_finds_all_there_is(reasoning):
    backbone = scores(replace(THREADS, steps=0), worlds.threads)
    reasoned = scores(replace(THREADS, reasoning=reasoning), worlds.threads)
    assert np.mean(reasoned) >= 0.99 * np.mean(backbone), (reasoned, backbone)


def test_erl_finds_what_its_backbone_and_one_with_a_layer_more_for_each_step_do_not():
    reasoned = scores(replace(LOOPS, reasoning="erl"), worlds.loops)
    assert_better(reasoned, scores(replace(LOOPS, steps=0), worlds.loops), 0.01)
    assert_better(reasoned, scores(replace(LOOPS, steps=0, layers=3), worlds.loops), 0.01)


def test_prl_finds_what_its_backbone_does_not():
    backbone = scores(replace(LOOPS, steps=0), worlds.loops)
    assert_better(scores(replace(LOOPS, reasoning="prl"), worlds.loops), backbone)


def test_steps_of_erl_are_alike_without_their_divergence():
    settings = replace(THREADS, reasoning="erl")
    without = cosines(replace(settings, divergence_weight=0.0), worlds.threads)
    assert_better(without, cosines(settings, worlds.threads))
