"""Items as sets of vectors: behaviour says a user's taste, texts say topics, and new items have nothing but a text.

The topic of the next item follows from that of the last one; a user's taste is in no text. All arms but the one of
shuffled texts are one model, asked with other shares of the semantic slots. Texts are no wider than the topics are
many: whitening makes what is left of wider ones as large as the topics, and slots learn that by heart.
"""

from dataclasses import replace

import numpy as np
import planted_worlds as worlds
import pytest
import torch
from test_planted_fusion import TEACHING, learned, training_part
from test_planted_recommenders import SEEDS, assert_better

from ray_jobs.collaborative_vectors import teacher_plan
from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.evaluation.metrics import ndcg
from ray_jobs.recipes.sequential import setrec
from ray_jobs.recipes.sequential.setrec import SETRec, SETRecSettings
from ray_jobs.stages.collaborative_vectors import CollaborativeVectorsSettings
from ray_jobs.training.loop import fit

GIVEN = {"width": 32, "layers": 1, "dropout": 0.1, "semantic_slots": 2, "hidden": (32,), "max_history": 8}
GIVEN |= {"epochs": 40, "batch_size": 64, "learning_rate": 5e-3, "evaluate_every": 4, "patience": 4}
TEXT_WIDTH = 8


class Texts:
    """An encoder of texts that are the numbers of their vectors."""

    dim = TEXT_WIDTH

    def __init__(self, vectors):
        self.vectors = vectors

    def to(self, device):
        return self

    def encode(self, texts):
        return self.vectors[[int(text[1:]) for text in texts]]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def taught(world, items, seed):
    """Vectors float32[items, d] of a teacher, 0 for items that it never met."""
    own = CollaborativeVectorsSettings(**TEACHING, width=16, epochs=20, seed=seed)
    histories = training_part(world)
    met = np.unique(np.concatenate([histories.training_items(user) for user in range(len(histories))]))
    vectors = np.zeros((items, 16), np.float32)
    # As in the stage, the teacher knows the items that it meets and no others; here the new ones keep their places.
    names = worlds.catalogue(items).item_ids
    vectors[met] = learned(teacher_plan(own, names, histories))["items.weight"][1:].numpy()[met]
    return vectors, np.isin(np.arange(items), met)


def trained(world, catalogue, texts, seed, monkeypatch):
    monkeypatch.setattr(setrec, "load_text_encoder", lambda name: Texts(texts))
    torch.manual_seed(seed)
    settings = SETRecSettings(**GIVEN, seed=seed)
    model = SETRec(settings, catalogue)
    model.prepare(None)
    valid = evaluation_examples(world, "valid", settings.max_history)
    state = fit(model, InMemoryExamples(model.training_examples(world)), InMemoryExamples(valid))
    model.load_trained_state(state.best)
    return model.eval()


def scores(model, world, new):
    """NDCG@10 of test users: of those whose target is new, among all items and among new ones; of the others."""
    (batch,) = InMemoryExamples(evaluation_examples(world, "test", GIVEN["max_history"])).batches(len(world), None)
    cold = new[batch.targets.numpy()]
    out = torch.cat([batch.seen, torch.from_numpy(np.flatnonzero(~new)).expand(len(batch), -1)], dim=1)
    among_all, among_new = (ndcg(model.ranks(batch, exclude).numpy(), 10) for exclude in (batch.seen, out))
    return float(among_all[cold].mean()), float(among_new[cold].mean()), float(among_all[~cold].mean())


def test_both_kinds_of_slots_are_needed_and_texts_of_other_items_lose_new_ones(monkeypatch):
    found = {"all": [], "collaborative": [], "semantic": [], "shuffled": []}
    for seed in SEEDS:
        world, topic, new = worlds.tastes_and_topics(seed)
        rng = np.random.default_rng(seed)
        texts = rng.normal(size=(topic.max() + 1, TEXT_WIDTH))[topic] + 0.5 * rng.normal(size=(len(topic), TEXT_WIDTH))
        vectors, met = taught(world, len(topic), seed)
        catalogue = replace(
            worlds.catalogue(len(topic)),
            titles=tuple(f"T{item}" for item in range(len(topic))),
            interacted=met,
            vectors={"collaborative_vectors.vector": vectors},
        )
        arms = {name: one.astype(np.float32) for name, one in (("all", texts), ("shuffled", rng.permutation(texts)))}
        models = {name: trained(world, catalogue, one, seed, monkeypatch) for name, one in arms.items()}
        for name, model in models.items():
            found[name].append(scores(model, world, new))
        model = models["all"]
        for name, share in (("collaborative", 0.0), ("semantic", 1.0)):
            model.semantic_share.fill_(share)
            found[name].append(scores(model, world, new))
    cold, among_new, warm = ({name: [parts[part] for parts in one] for name, one in found.items()} for part in range(3))
    # Without its text a new item is like any other one: ties count against it.
    assert_better(cold["all"], cold["collaborative"], 0.01)
    assert_better(cold["all"], cold["shuffled"], 0.01)
    assert_better(among_new["all"], among_new["shuffled"], 0.1)
    assert_better(warm["all"], warm["semantic"], 0.05)
