"""A tiny in-memory world for recommender tests: clusters of items that follow each other in a ring."""

import numpy as np

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import Histories

CLUSTERS = ("guitar", "kettle", "tent", "novel", "lamp", "puppy")
PER_CLUSTER = 5


def small_catalogue() -> Catalogue:
    names = [(cluster, number) for cluster in range(len(CLUSTERS)) for number in range(PER_CLUSTER)]
    return Catalogue(
        item_ids=tuple(f"I{cluster}{number}" for cluster, number in names),
        titles=tuple(f"{CLUSTERS[cluster].title()} model {number}" for cluster, number in names),
        texts=tuple(f"A {CLUSTERS[cluster]}, number {number}" for cluster, number in names),
        codes=np.array(names, dtype=np.int64),
        level_sizes=(len(CLUSTERS), PER_CLUSTER),
        vectors={
            "collaborative_vectors.vector": learned(names, 8),
            "fused_vectors.collaborative": learned(names, 6),
            "fused_vectors.text": learned(names, 6),
        },
    )


def learned(names: list[tuple[int, int]], width: int) -> np.ndarray:
    """Vectors of a stage: a direction for each cluster, and some noise."""
    noise = np.random.default_rng(0).normal(size=(len(names), width)) * 0.2
    return (np.eye(len(CLUSTERS), width)[[cluster for cluster, _ in names]] + noise).astype(np.float32)


def small_histories(users: int = 60, seed: int = 0, told: bool = False) -> Histories:
    """Each user walks the ring of clusters; every other position's preference names the cluster that comes next.

    Args:
        told: the walk is random, and the preference at every position names what comes next: nothing else does.
    """
    rng = np.random.default_rng(seed)
    items, preferences = [], []
    for user in range(users):
        start, length = int(rng.integers(len(CLUSTERS))), 5 + user % 4
        walk = [(start + step) % len(CLUSTERS) for step in range(length + 1)]
        if told:
            walk = [int(cluster) for cluster in rng.integers(len(CLUSTERS), size=length + 1)]
        picks = rng.integers(PER_CLUSTER, size=length)
        items.append(np.array([walk[p] * PER_CLUSTER + picks[p] for p in range(length)], dtype=np.int64))
        said = [p for p in range(length) if told or p % 2]
        preferences.append({p: (f"Find a {CLUSTERS[walk[p + 1]]}", "Avoid noise") for p in said})
    lengths = np.array([len(history) for history in items], dtype=np.int64)
    return Histories(
        user_ids=tuple(f"U{user:03d}" for user in range(users)),
        items=tuple(items),
        valid_position=lengths - 2,
        test_position=lengths - 1,
        preferences=tuple(preferences),
    )
