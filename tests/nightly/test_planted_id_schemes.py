"""Codes that say who is bought together help a generator; the same tree over a shuffled graph does not."""

import numpy as np
import planted_worlds as worlds
import torch
from test_planted_recommenders import SEEDS, assert_better, popularity, trained

from infra.settings import RaySettings
from ray_jobs.data.histories import Histories
from ray_jobs.recommenders.tiger import Tiger, TigerSettings
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.itemindex import ItemIndex, ItemIndexSettings

SMALL = {"width": 32, "heads": 2, "head_width": 16, "inner": 64, "layers": 1, "encoder_layers": 1, "dropout": 0.1}


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


def test_collaborative_and_hybrid_ids_beat_random_ones():
    found: dict[str, list[float]] = {"random": [], "collaborative": [], "hybrid": [], "shuffled": [], "popularity": []}
    for seed in SEEDS:
        world, _ = worlds.communities(seed)
        own = [world.training_items(user) for user in range(len(world))]
        pool = np.random.default_rng(seed).permutation(np.concatenate(own))
        shuffled = np.split(pool, np.cumsum([len(row) for row in own])[:-1])
        settings = TigerSettings(
            **SMALL,
            max_history=8,
            epochs=12,
            batch_size=64,
            learning_rate=3e-3,
            evaluate_every=3,
            patience=4,
            seed=seed,
        )
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
