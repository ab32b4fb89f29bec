"""Residual k-means with clusters of equal size at every level, as OneRec's tokenizer (Deng et al. 2025).

Equal sizes avoid the crowded middle levels of RQ-VAE. OneRec fills its clusters one after another, so that the last
ones get the rest; here all items bid for all clusters at once (an auction, Bertsekas 1988), which keeps the sum of
squared distances near its minimum. Items without training interactions and appended items get the nearest centre.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ray_jobs.recipes.tokenizers.settings import BalancedKMeansSettings
from ray_jobs.tokenizers.base import Codes
from ray_jobs.tokenizers.collisions import running_numbers
from ray_jobs.tokenizers.kmeans import squared_distances
from ray_jobs.tokenizers.residual import ResidualTokenizer, level_centres
from ray_jobs.tokenizers.vectors import Floats, Mask, Vectors, sampled_rows, take

_CELLS = 2**24
_TOLERANCE = 0.02
_ROUNDS_BEFORE_COARSER = 64

Counts = npt.NDArray[np.int64]
Prices = npt.NDArray[np.float64]


def balanced_assignment(costs: Floats, capacities: Counts, prices: Prices | None = None) -> tuple[Codes, Prices]:
    """Assign each of n rows to a cluster at low total cost, at most ``capacities[k]`` rows to cluster k.

    An auction in rounds: each unassigned row bids for the cluster that is cheapest at the current prices, up to the
    point where its second choice is as good; a cluster keeps its highest bids. If the capacities sum to n, the total
    cost exceeds the minimum by at most n times the bidding step, which is 2 % of the standard deviation of the costs
    and doubles every 64 rounds to guarantee termination.

    Args:
        costs: float32[n, K].
        capacities: int64[K], at least n in total.
        prices: float64[K], the final prices for similar rows; with spare capacity they keep rows away from clusters
            that later rows need more.

    Returns:
        int32[n] and the final prices. Deterministic; among equal bids lower rows win.
    """
    items, clusters = costs.shape
    assert capacities.sum() >= items, "the capacities are too small"
    start = np.zeros(clusters) if prices is None else prices
    prices = np.where(capacities > 0, start, np.inf)
    owner, bids = np.full(items, -1), np.zeros(items)
    step = _TOLERANCE * float(costs.std()) + np.finfo(np.float32).tiny
    rounds = 0
    while (waiting := np.flatnonzero(owner < 0)).size:
        worth = costs[waiting] + prices
        chosen = worth.argmin(axis=1)
        places = np.arange(len(waiting))
        best = worth[places, chosen]
        worth[places, chosen] = np.inf
        second = worth.min(axis=1)
        owner[waiting] = chosen
        bids[waiting] = prices[chosen] + np.where(np.isfinite(second), second - best, 0.0) + step
        held = np.flatnonzero(owner >= 0)
        rank, room = running_numbers(owner[held], np.argsort(-bids[held], kind="stable")), capacities[owner[held]]
        last = held[rank == room - 1]
        prices[owner[last]] = bids[last]
        owner[held[rank >= room]] = -1
        rounds += 1
        if rounds % _ROUNDS_BEFORE_COARSER == 0:
            step *= 2
    return owner.astype(np.int32), np.where(capacities > 0, prices, start)


def _even(rows: int, demand: Counts) -> Counts:
    """Capacities that sum to `rows` and differ by at most one; larger for the clusters with the highest demand."""
    least, larger = divmod(rows, len(demand))
    places = np.full(len(demand), least)
    places[np.argsort(-demand, kind="stable")[:larger]] += 1
    return places


class _Filling:
    """Assigns a known number of rows, block by block, to clusters whose sizes differ by at most one.

    Blocks before the last use the prices of the sample, so that the last one does not just get the rest.
    """

    def __init__(self, centres: Floats, places: Counts, prices: Prices) -> None:
        self.centres, self.places, self.prices = centres, places, prices

    def __call__(self, block: Floats) -> Codes:
        step = max(1, _CELLS // len(self.centres))
        return np.concatenate([self._assign(block[start : start + step]) for start in range(0, len(block), step)])

    def _assign(self, rows: Floats) -> Codes:
        is_last = self.places.sum() == len(rows)
        costs = squared_distances(rows, self.centres)
        codes, _ = balanced_assignment(costs, self.places, None if is_last else self.prices)
        self.places = self.places - np.bincount(codes, minlength=len(self.centres))
        return codes


class BalancedKMeansTokenizer(ResidualTokenizer):
    """The recipe ``balanced_kmeans``: at each level, the numbers of training items per code differ by at most one."""

    name: ClassVar[str] = "balanced_kmeans"

    def fit_level(self, residuals: Vectors, training: Mask, seed: int) -> tuple[Floats, Callable[[Floats], Codes]]:
        """See `ResidualTokenizer.fit_level`; balanced k-means of the residuals, or of a sample that fits in memory."""
        settings = self.settings
        assert isinstance(settings, BalancedKMeansSettings)
        size = min(settings.codebook_size * settings.sample_per_code, max(1, _CELLS // settings.codebook_size))
        rows = take(residuals, sampled_rows(training, size, seed))
        centres = level_centres(rows, settings, seed)
        before: Codes | None = None
        for _ in range(settings.balanced_iterations):
            costs = squared_distances(rows, centres)
            demand = np.bincount(costs.argmin(axis=1), minlength=costs.shape[1])
            codes, prices = balanced_assignment(costs, _even(len(rows), demand))
            if before is not None and (codes == before).all():
                break
            before = codes
            counts = np.bincount(codes, minlength=len(centres))
            sums = np.zeros(centres.shape)
            np.add.at(sums, codes, rows)
            centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres).astype(np.float32)
        return centres, _Filling(centres, _even(int(training.sum()), demand), prices)
