"""Codes that say who is bought together help a generator; the same tree over a shuffled graph does not."""

import numpy as np
import planted_worlds as worlds
import torch
from test_planted_recommenders import SEEDS, assert_better, popularity, trained

from infra.settings import RaySettings
from ray_jobs.data.histories import Histories
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.tokenizers.balanced_kmeans import BalancedKMeansSettings, BalancedKMeansTokenizer
from ray_jobs.recipes.tokenizers.itemindex import ItemIndex, ItemIndexSettings
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.collisions import counter_level
from ray_jobs.tokenizers.vectors import ArrayVectors

SMALL = {"width": 32, "heads": 2, "head_width": 16, "inner": 64, "layers": 1, "encoder_layers": 1, "dropout": 0.1}

BUDGET = {
    "max_history": 8,
    "epochs": 12,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "evaluate_every": 3,
    "patience": 4,
}


def coded(world: Histories, seed: int, sequences: list[np.ndarray], **scheme):
    """The catalogue with ids of a scheme, built from `sequences`."""
    catalogue = worlds.catalogue()
    ids = list(catalogue.item_ids)
    context = FitContext(
        training=np.isin(np.arange(len(ids)), np.concatenate(sequences)),
        version="v",
        ray=RaySettings(),
        run_name="v",
        home="",
        stage="",
        sequences=tuple(sequences),
    )
    settings = ItemIndexSettings(**scheme, clusters=worlds.CLUSTERS, leaf=worlds.PER_CLUSTER, seed=seed)
    book = ItemIndex(settings).fit(np.zeros((len(ids), 1), np.float32), ids, context).codebook
    return catalogue.with_codes(dict(zip(ids, book.codes.tolist(), strict=True)), book.level_sizes)


def told_codes(vectors: np.ndarray, seed: int):
    """The catalogue with codes of a balanced tree over `vectors` [items, D]; a counter tells leaves' items apart."""
    catalogue = worlds.catalogue()
    ids = list(catalogue.item_ids)
    settings = BalancedKMeansSettings(levels=1, codebook_size=worlds.CLUSTERS, seed=seed)
    everything = np.ones(len(ids), dtype=bool)
    _, codes, _ = BalancedKMeansTokenizer(settings).fit_levels(ArrayVectors(vectors.astype(np.float32)), everything)
    assert np.bincount(codes[:, 0]).max() <= worlds.PER_CLUSTER, "a leaf holds no more than its share"
    codes, counted = counter_level(ids, codes, 0, "collision_size")
    assert len({tuple(row) for row in codes.tolist()}) == len(ids)
    return catalogue.with_codes(dict(zip(ids, codes.tolist(), strict=True)), (worlds.CLUSTERS, counted))


def bought_together(world: Histories) -> np.ndarray:
    """Vectors [items, D] of the graph of what the same users bought in training, by its singular vectors."""
    baskets = np.zeros((len(world), worlds.ITEMS))
    for user in range(len(world)):
        baskets[user, world.training_items(user)] = 1
    together = baskets.T @ baskets
    degree = np.sqrt(np.maximum(together.sum(1), 1e-9))
    left, values, _ = np.linalg.svd(together / degree[:, None] / degree[None, :])
    return left[:, : worlds.CLUSTERS] * values[: worlds.CLUSTERS]


def test_a_tree_over_who_buys_beats_one_over_texts_that_seldom_say_it():
    """ColaRec's order of ids where the text's group is the buyers' group for three items in ten."""
    agreement = 0.3
    found: dict[str, list[float]] = {"collaborative": [], "text": [], "random": []}
    for seed in SEEDS:
        world, member = worlds.communities(seed)
        rng = np.random.default_rng(seed)
        group = np.empty(worlds.ITEMS, dtype=np.int64)
        for number, items in enumerate(member):
            group[items] = number
        said = np.where(rng.random(worlds.ITEMS) < agreement, group, rng.integers(worlds.CLUSTERS, size=worlds.ITEMS))
        centres = rng.normal(size=(worlds.CLUSTERS, 16)) * 3
        texts = centres[said] + rng.normal(size=(worlds.ITEMS, 16))
        settings = TigerSettings(**SMALL, **BUDGET, seed=seed)
        for name, vectors in (
            ("collaborative", bought_together(world)),
            ("text", texts),
            ("random", rng.normal(size=texts.shape)),
        ):
            torch.manual_seed(seed)
            found[name].append(trained(Tiger, settings, world, told_codes(vectors, seed)))
    assert_better(found["collaborative"], found["text"])
    assert_better(found["text"], found["random"])


def test_collaborative_and_hybrid_ids_beat_random_ones():
    found: dict[str, list[float]] = {"random": [], "collaborative": [], "hybrid": [], "shuffled": [], "popularity": []}
    for seed in SEEDS:
        world, _ = worlds.communities(seed)
        own = [world.training_items(user) for user in range(len(world))]
        pool = np.random.default_rng(seed).permutation(np.concatenate(own))
        shuffled = np.split(pool, np.cumsum([len(row) for row in own])[:-1])
        settings = TigerSettings(**SMALL, **BUDGET, seed=seed)
        for name, scheme, sequences in (
            ("random", "random", own),
            ("collaborative", "collaborative", own),
            ("hybrid", "hybrid", own),
            ("shuffled", "collaborative", shuffled),
        ):
            torch.manual_seed(seed)
            found[name].append(trained(Tiger, settings, world, coded(world, seed, sequences, scheme=scheme)))
        found["popularity"].append(popularity(world))
    assert_better(found["random"], found["popularity"])
    assert_better(found["collaborative"], found["random"])
    assert_better(found["hybrid"], found["random"])
    assert_better(found["collaborative"], found["shuffled"])
