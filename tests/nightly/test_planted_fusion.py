"""Codes over texts and behaviour in one space, where texts seldom say what is bought together: ProRec's claim.

Texts are wider than collaborative vectors, and every dimension counts as much, as in the RQ-VAE: side by side, codes
follow the texts. The control's behaviour is that of other items, in the teacher and in the alignment.
"""

from dataclasses import replace

import numpy as np
import planted_worlds as worlds
import pytest
import torch
from test_planted_recommenders import SEEDS, assert_better, trained

from ray_jobs.collaborative_vectors import teacher_plan
from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.histories import Histories
from ray_jobs.data.rows import Rows, offsets_of
from ray_jobs.recipes.generative.prorec import ProRec
from ray_jobs.recipes.generative.settings import ProRecSettings
from ray_jobs.recipes.tokenizers.rqkmeans import RQKMeansTokenizer
from ray_jobs.recipes.tokenizers.settings import RQKMeansSettings
from ray_jobs.stages.collaborative_vectors import CollaborativeVectorsSettings
from ray_jobs.tokenizers import fusion
from ray_jobs.tokenizers.alignment import aligned, alignment_plan
from ray_jobs.tokenizers.collisions import counter_level
from ray_jobs.tokenizers.settings import AlignmentSettings
from ray_jobs.tokenizers.vectors import ArrayVectors
from ray_jobs.training.loop import fit
from schemas.recipes import Need, learned_vectors

TEACHING = {"layers": 1, "heads": 1, "dropout": 0.1, "max_history": 8, "batch_size": 64, "learning_rate": 5e-3}
WRITING = {"width": 32, "heads": 2, "head_width": 16, "inner": 64, "layers": 1, "encoder_layers": 1, "dropout": 0.1}
WRITING |= {"max_history": 8, "epochs": 12, "batch_size": 64, "learning_rate": 3e-3, "evaluate_every": 3, "patience": 4}
AGREEMENT, TEXT_WIDTH, WIDTH = 0.3, 96, 16


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def training_part(world, member=None):
    """Histories of training positions alone, of other items if `member` maps them."""
    ends = world.training_ends
    values = Rows.of(world.items).beginnings(ends)
    return Histories.of_training(Rows(values if member is None else member[values], offsets_of(ends)))


def learned(plan):
    module = plan.build()
    return fit(module, InMemoryExamples(plan.examples if hasattr(plan, "examples") else plan.train)).trained


def parts_of(world, texts, seed, kinds, member=None):
    """The parts of the items' vectors by kind, with one teacher."""
    histories = training_part(world, member)
    own = CollaborativeVectorsSettings(**TEACHING, width=WIDTH, epochs=20, seed=seed)
    vectors = learned(teacher_plan(own, worlds.catalogue().item_ids, histories))["items.weight"][1:].numpy()
    found = {kind: fusion.join(kind, texts, vectors).parts(texts, vectors) for kind in kinds if kind != "fused"}
    settings = AlignmentSettings(**TEACHING, epochs=20, seed=seed)
    made, vectors = aligned(learned(alignment_plan(settings, histories, texts, vectors)))
    return found | {"fused": made.parts(texts, vectors)}


def coded(parts, seed):
    """The catalogue with residual k-means codes of the parts side by side."""
    catalogue = worlds.catalogue()
    settings = RQKMeansSettings(levels=2, codebook_size=worlds.CLUSTERS, standardise=True, seed=seed)
    vectors = np.concatenate(parts, axis=1)
    _, codes, _ = RQKMeansTokenizer(settings).fit_levels(ArrayVectors(vectors), np.ones(len(vectors), bool))
    ids = list(catalogue.item_ids)
    codes, counted = counter_level(ids, codes, 0, "collision_size")
    sizes = (worlds.CLUSTERS, worlds.CLUSTERS, counted)
    there = replace(catalogue, vectors=dict(zip(learned_vectors({Need.FUSED_VECTORS}), parts, strict=True)))
    return there.with_codes(dict(zip(ids, codes.tolist(), strict=True)), sizes)


def agreement(codes, group):
    """How many pairs of items with the same first code are of one group."""
    same = (codes[:, None] == codes[None, :]) & ~np.eye(len(codes), dtype=bool)
    return float((group[:, None] == group[None, :])[same].mean())


def planted(seed):
    """A world of communities, the community of each item, and its text vector."""
    world, member = worlds.communities(seed)
    rng = np.random.default_rng(seed)
    group = np.empty(worlds.ITEMS, dtype=np.int64)
    for number, items in enumerate(member):
        group[items] = number
    said = np.where(rng.random(worlds.ITEMS) < AGREEMENT, group, rng.integers(worlds.CLUSTERS, size=worlds.ITEMS))
    texts = rng.normal(size=(worlds.CLUSTERS, TEXT_WIDTH))[said] * 2 + rng.normal(size=(worlds.ITEMS, TEXT_WIDTH))
    return world, group, fusion.unit(texts.astype(np.float32))


@pytest.fixture(scope="module")
def arms():
    """By seed the world, the community of each item, and the catalogue by what is coded."""
    torch.set_num_threads(1)
    found = {}
    for seed in SEEDS:
        world, group, texts = planted(seed)
        other = np.random.default_rng(seed + 100).permutation(worlds.ITEMS)
        parts = {
            "text": (texts[:, :0], texts),
            **parts_of(world, texts, seed, ("concatenated",)),
            "others": parts_of(world, texts, seed, (), other)["fused"],
        }
        found[seed] = world, group, {name: coded(one, seed) for name, one in parts.items()}
    return found


def test_texts_rule_the_codes_of_concatenated_vectors_and_not_those_of_fused_ones(arms):
    found = {"text": [], "concatenated": [], "fused": [], "others": []}
    for _, group, catalogues in arms.values():
        for name, catalogue in catalogues.items():
            found[name].append(agreement(catalogue.codes[:, 0], group))
    assert_better(found["fused"], found["concatenated"], 0.05)
    assert_better(found["fused"], found["others"], 0.1)
    assert max(found["concatenated"]) < min(found["fused"])


def test_a_generator_gains_from_behaviour_in_the_codes_and_loses_by_that_of_other_items(arms):
    """Against concatenated vectors the gain is within the noise, see the head of the recipe."""
    found = {"text": [], "fused": [], "others": []}
    for seed, (world, _, catalogues) in arms.items():
        for name, scores in found.items():
            torch.manual_seed(seed)
            scores.append(trained(ProRec, ProRecSettings(**WRITING, seed=seed), world, catalogues[name]))
    assert_better(found["fused"], found["text"], 0.03)
    assert_better(found["fused"], found["others"], 0.1)
