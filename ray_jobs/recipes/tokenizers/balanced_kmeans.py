"""Residual k-means whose clusters are of equal size at every level, as OneRec's tokenizer (Deng et al. 2025).

Equal sizes avoid the crowded middle levels of RQ-VAE. OneRec fills its clusters one after the other, so that the last
get what the others left; here all items bid for all clusters at once (an auction, Bertsekas 1988), which keeps the sum
of squared distances near its least. Items that are not trained on, and those appended later, get the nearest centre.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ray_jobs.recipes.tokenizers.settings import BalancedKMeansSettings
from ray_jobs.tokenizers.base import Codes
from ray_jobs.tokenizers.residual import ResidualTokenizer, kmeans_centres, squared_distances
from ray_jobs.tokenizers.vectors import Floats, Mask, Vectors, sampled_rows, take

_CELLS = 2**24
_TOLERANCE = 0.02
_ROUNDS_BEFORE_COARSER = 64

Counts = npt.NDArray[np.int64]
Prices = npt.NDArray[np.float64]


def balanced_assignment(costs: Floats, capacities: Counts, prices: Prices | None = None) -> tuple[Codes, Prices]:
    """Give each of n rows a cluster, so that no cluster k gets more than ``capacities[k]`` and the costs are small.

    An auction in rounds: each row without a place bids for the cluster that is cheapest at the present prices, up to
    where its second choice is as good; a cluster keeps its highest bids. With as many places as rows the sum of costs
    exceeds the least by at most n times the bidding step: 2 % of the spread of costs, doubled every 64 rounds so that
    it ends.

    Args:
        costs: float32[n, K].
        capacities: int64[K], n or more in all.
        prices: float64[K], at the end of an auction of similar rows; where places are more than rows, they keep rows
            off clusters that later rows need more.

    Returns:
        int32[n] and the prices at the end. The same input gives the same clusters, lower rows before higher where bids
        are equal.
    """
    items, clusters = costs.shape
    assert capacities.sum() >= items, "every row needs a place"
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
        order = held[np.lexsort((held, -bids[held], owner[held]))]
        counts = np.bincount(owner[order], minlength=clusters)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        last = order[rank == capacities[owner[order]] - 1]
        prices[owner[last]] = bids[last]
        owner[order[rank >= capacities[owner[order]]]] = -1
        rounds += 1
        if rounds % _ROUNDS_BEFORE_COARSER == 0:
            step *= 2
    return owner.astype(np.int32), np.where(capacities > 0, prices, start)


def _even(rows: int, demand: Counts) -> Counts:
    """Places per cluster for that many rows, differing by at most one; the larger ones where demand is highest."""
    least, larger = divmod(rows, len(demand))
    places = np.full(len(demand), least)
    places[np.argsort(-demand, kind="stable")[:larger]] += 1
    return places


def _nearest_counts(costs: Floats) -> Counts:
    return np.bincount(costs.argmin(axis=1), minlength=costs.shape[1])


class _Filling:
    """Assigns a known number of rows, block by block, within places that differ by at most one.

    Blocks before the last go by the prices of the sample, so that the last does not get what the others left.
    """

    def __init__(self, centres: Floats, places: Counts, prices: Prices) -> None:
        self.centres = centres
        self.places = places
        self.prices = prices

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
    """The recipe ``balanced_kmeans``: at each level the numbers of training items per code differ by at most one."""

    name: ClassVar[str] = "balanced_kmeans"

    def fit_level(self, residuals: Vectors, training: Mask, seed: int) -> tuple[Floats, Callable[[Floats], Codes]]:
        """Balanced k-means of the residuals, or of a sample where items times codes are too many to hold.

        The items then get their codes block by block.
        """
        settings = self.settings
        assert isinstance(settings, BalancedKMeansSettings)
        size = min(settings.codebook_size * settings.sample_per_code, max(1, _CELLS // settings.codebook_size))
        rows = take(residuals, sampled_rows(training, size, seed))
        centres = kmeans_centres(rows, settings, seed)
        before: Codes | None = None
        for _ in range(settings.balanced_iterations):
            costs = squared_distances(rows, centres)
            demand = _nearest_counts(costs)
            codes, prices = balanced_assignment(costs, _even(len(rows), demand))
            if before is not None and (codes == before).all():
                break
            before = codes
            counts = np.bincount(codes, minlength=len(centres))
            sums = np.zeros(centres.shape)
            np.add.at(sums, codes, rows)
            centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres).astype(np.float32)
        return centres, _Filling(centres, _even(int(training.sum()), demand), prices)
