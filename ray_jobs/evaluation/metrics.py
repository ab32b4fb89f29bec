"""Metrics of one relevant item per user, their intervals, and tests of two models over the same users.

Ranks start at 1; 0 means "not placed" and scores 0. Intervals are percentile bootstraps over users (Efron, 1979),
p-values come from random sign flips of per-user differences (Fisher's randomisation test), both with a fixed number of
draws under a seed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CUTOFFS = (5, 10, 20)
METRICS = (*(f"{name}_{k}" for name in ("recall", "ndcg") for k in CUTOFFS), "mrr")
_CELLS = 2_000_000
"""Largest number of users times draws in memory at once."""
_PAIRED_DRAWS = 2000


def recall(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """1 if the target is among the first k, else 0."""
    rank = np.asarray(ranks)
    return ((rank >= 1) & (rank <= k)).astype(np.float64)


def ndcg(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """1 / log2(rank + 1) if the target is among the first k, else 0; the ideal gain of one relevant item is 1."""
    rank = np.asarray(ranks)
    return np.where(recall(rank, k) > 0, 1.0 / np.log2(np.maximum(rank, 1) + 1.0), 0.0)


def reciprocal_rank(ranks: npt.ArrayLike) -> FloatArray:
    """1 / rank without a cut-off, 0 if the target was not placed; the mean is MRR."""
    rank = np.asarray(ranks)
    return np.where(rank >= 1, 1.0 / np.maximum(rank, 1), 0.0)


def per_user(ranks: npt.ArrayLike) -> dict[str, FloatArray]:
    """Every metric of `METRICS` by name, float64[U] each."""
    cut = {f"{name}_{k}": metric(ranks, k) for name, metric in (("recall", recall), ("ndcg", ndcg)) for k in CUTOFFS}
    return {**cut, "mrr": reciprocal_rank(ranks)}


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap percentile interval over users."""

    mean: float
    low: float
    high: float

    def text(self, digits: int = 4) -> str:
        """``mean (low-high)`` for people."""
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"

    def signed(self, digits: int = 4) -> str:
        """``+mean (+low to +high)`` for people, of a difference."""
        return f"{self.mean:+.{digits}f} ({self.low:+.{digits}f} to {self.high:+.{digits}f})"


def bootstrap(values: npt.ArrayLike, seed: int = 0, draws: int = 1000) -> Interval:
    """Mean of `values` [U] and its interval from `draws` resamplings of the users."""
    return bootstrap_each({"": values}, seed, draws)[""]


def bootstrap_each(columns: Mapping[str, npt.ArrayLike], seed: int = 0, draws: int = 1000) -> dict[str, Interval]:
    """`bootstrap` of several columns over the same users, with the same resamplings."""
    values = np.stack([np.asarray(column, dtype=np.float64) for column in columns.values()], axis=1)
    users = len(values)
    assert users, "no user to average over"
    rng = np.random.default_rng(seed)
    means = []
    for size in _chunks(draws, users):
        chosen = rng.integers(0, users, (size, users)) + np.arange(size)[:, None] * users
        weights = np.bincount(chosen.ravel(), minlength=size * users).reshape(size, users)
        means.append(weights @ values / users)
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return {name: Interval(float(values[:, i].mean()), float(low[i]), float(high[i])) for i, name in enumerate(columns)}


@dataclass(frozen=True)
class Paired:
    """The difference of two models, per user.

    Args:
        difference: mean of first - second with its interval.
        p_value: two-sided, of the hypothesis that the sign of each difference is random.
        users: number of users compared.
    """

    difference: Interval
    p_value: float
    users: int


def paired(first: npt.ArrayLike, second: npt.ArrayLike) -> Paired:
    """Compare two models by a per-user metric over the same users in the same order.

    Raises:
        ValueError: the lengths differ.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"a paired test needs the same users twice, and got {one.shape} and {two.shape} values")
    differences = one - two
    return Paired(bootstrap(differences, draws=_PAIRED_DRAWS), sign_flip_p(differences), len(differences))


def sign_flip_p(differences: npt.ArrayLike, seed: int = 0, draws: int = _PAIRED_DRAWS) -> float:
    """Two-sided p-value of the mean of `differences` [U] under random signs, at least 1 / (draws + 1)."""
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    # The sum under random signs is twice the sum of those that keep their sign, minus the sum of all.
    total = values.sum()
    bar = abs(total) * (1 - 1e-9)
    rng = np.random.default_rng(seed)
    reached = 0
    for size in _chunks(draws, len(values)):
        bits = np.frombuffer(rng.bytes(size * ((len(values) + 7) // 8)), dtype=np.uint8).reshape(size, -1)
        kept = np.unpackbits(bits, axis=1, count=len(values)) @ values
        reached += int((np.abs(2 * kept - total) >= bar).sum())
    return (reached + 1) / (draws + 1)


def non_inferior(new: npt.ArrayLike, old: npt.ArrayLike, margin: float) -> tuple[bool, Paired]:
    """Non-inferiority test: whether the 95 % interval of the paired difference lies above ``-margin``.

    Few users have a wide interval and do not pass.

    Args:
        margin: in units of the metric, at least 0; 0 requires that `new` is significantly better.

    Raises:
        ValueError: the margin is negative, or the lengths differ.
    """
    if margin < 0:
        raise ValueError(f"margin is {margin}, but must not be negative")
    found = paired(new, old)
    return found.difference.low > -margin, found


def _chunks(draws: int, users: int) -> Iterator[int]:
    size = max(1, _CELLS // users)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def doubled(before: FloatArray, after: FloatArray) -> npt.NDArray[np.bool_]:
    """Where a share is above zero and at least twice what it was."""
    return (after > 0) & (after >= 2 * before)
