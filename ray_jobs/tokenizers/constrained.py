"""k-means with clusters of bounded size."""

import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizers.base import Floats
from ray_jobs.tokenizers.collisions import running_numbers
from ray_jobs.tokenizers.cooccurrence import IntArray, kmeans

_STEPS = 5


def balanced_codes(vectors: Floats, branches: int, seed: int) -> npt.NDArray[np.int32]:
    """Two levels of clusters, top down (ColaRec, Wang et al. 2024).

    Args:
        vectors: float32[n, D], n at most ``branches ** 3``.
        branches: clusters per level; each has at most ``branches ** 2`` items, then `branches`.
        seed: of k-means.

    Returns:
        int32[n, 2].
    """
    codes = np.zeros((len(vectors), 2), np.int32)
    codes[:, 0] = bounded_kmeans(vectors, branches, branches**2, seed)
    for code in np.unique(codes[:, 0]):
        rows = np.flatnonzero(codes[:, 0] == code)
        codes[rows, 1] = bounded_kmeans(vectors[rows], branches, branches, seed)
    return codes


def bounded_kmeans(vectors: Floats, clusters: int, most: int, seed: int) -> IntArray:
    """Cluster int64[n] of each of `vectors` float32[n, D], with at most `most` items per cluster.

    k-means, then a few rounds of bounded assignment and new centres.
    """
    if len(vectors) <= clusters:
        return np.arange(len(vectors))
    labels, centres = kmeans(vectors, clusters, seed)
    if np.bincount(labels).max() <= most:
        return labels
    for _ in range(_STEPS):
        away = np.square(vectors).sum(1, keepdims=True) - 2 * vectors @ centres.T + np.square(centres).sum(1)
        labels = place(away, most)
        members = np.eye(clusters, dtype=np.float32)[labels]
        taken = members.sum(axis=0)[:, None]
        centres = np.where(taken > 0, members.T @ vectors / np.maximum(taken, 1), centres)
    return labels


def place(cost: npt.NDArray[np.float32], most: int) -> IntArray:
    """Column of each row of `cost` float32[n, K], at most `most` rows per column; n is at most K times `most`.

    A stable matching (Gale and Shapley 1962): rows propose to their cheapest column, a column keeps its cheapest rows,
    and rejected rows propose to the next one.
    """
    preferences = np.argsort(cost, axis=1, kind="stable")
    rows, choice = np.arange(len(cost)), np.zeros(len(cost), np.int64)
    while True:
        labels = preferences[rows, choice]
        rejected = running_numbers(labels, np.argsort(cost[rows, labels], kind="stable")) >= most
        if not rejected.any():
            return labels
        choice[rejected] += 1
