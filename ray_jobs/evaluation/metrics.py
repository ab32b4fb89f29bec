"""Metrics of one relevant item per user, intervals and paired differences.

A rank counts from 1; 0 stands for "not placed" and earns nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CUTOFFS = (5, 10)


def recall(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """1 where the target is among the first k, else 0."""
    rank = np.asarray(ranks)
    return ((rank >= 1) & (rank <= k)).astype(np.float64)


def ndcg(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """1 / log2(rank + 1) where the target is among the first k, else 0; the ideal gain of one relevant item is 1."""
    rank = np.asarray(ranks)
    return np.where(recall(rank, k) > 0, 1.0 / np.log2(np.maximum(rank, 1) + 1.0), 0.0)


def per_user(ranks: npt.ArrayLike) -> dict[str, FloatArray]:
    """Every metric of the table `evaluations` for each rank."""
    return {f"{name}_{k}": metric(ranks, k) for name, metric in (("recall", recall), ("ndcg", ndcg)) for k in CUTOFFS}


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap percentile interval over users."""

    mean: float
    low: float
    high: float


def bootstrap(values: npt.ArrayLike, seed: int = 0, draws: int = 1000) -> Interval:
    """Mean of `values` and its interval from `draws` resamplings of the users.

    For a paired comparison give the per-user differences of two models over the same users.
    """
    array = np.asarray(values, dtype=np.float64)
    assert array.size, "no user to average over"
    rng = np.random.default_rng(seed)
    means = np.array([array[rng.integers(0, array.size, array.size)].mean() for _ in range(draws)])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high))
