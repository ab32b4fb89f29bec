"""Residual k-means whose clusters are of equal size at every level, as OneRec's tokenizer (Deng et al. 2025).

Equal sizes avoid the crowded middle levels of RQ-VAE. OneRec fills its clusters one after the other, so that the last
get what the others left; here all items bid for all clusters at once (an auction, Bertsekas 1988), which keeps the sum
of squared distances near its least. Items that are not trained on, and those appended later, get the nearest centre.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizers.base import Codes
from ray_jobs.tokenizers.residual import ResidualSettings, ResidualTokenizer, kmeans_centres, squared_distances
from ray_jobs.tokenizers.vectors import Floats, Mask, Vectors, sampled_rows, take

_CELLS = 2**24
_TOLERANCE = 0.02
_ROUNDS_BEFORE_COARSER = 64

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BalancedKMeansSettings(ResidualSettings):
    """Settings of the recipe.

    Args:
        balanced_iterations: rounds of balanced assignment and means, after a start from plain k-means; fewer when
            nothing moves any more.
    """

    section: ClassVar[str] = "balanced_kmeans"

    balanced_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "balanced_iterations")


def balanced_assignment(costs: Floats, capacities: Counts) -> Codes:
    """Give each of n rows a cluster, so that cluster k gets ``capacities[k]`` rows and the sum of costs is near least.

    An auction in rounds: each row without a place bids for the cluster that is cheapest at the present prices, up to
    where its second choice is as good; a cluster keeps its highest bids. The sum of costs exceeds the least by at most
    n times the bidding step: 2 % of the spread of costs, doubled every 64 rounds so that it ends.

    Args:
        costs: float32[n, K].
        capacities: int64[K], n in all.

    Returns:
        int32[n]; the same costs give the same clusters, lower rows before higher where bids are equal.
    """
    items, clusters = costs.shape
    assert capacities.sum() == items, "every row needs one place, and every place a row"
    prices = np.where(capacities > 0, 0.0, np.inf)
    owner, bids = np.full(items, -1), np.zeros(items)
    step = _TOLERANCE * float(costs.std()) + np.finfo(np.float32).tiny
    rounds = 0
    while (waiting := np.flatnonzero(owner < 0)).size:
        worth = costs[waiting] + prices
        chosen = worth.argmin(axis=1)
        places = np.arange(len(waiting))
        best = worth[places, chosen]
        worth[places, chosen] = np.inf
        second = worth.min(axis=1) if clusters > 1 else np.full(len(waiting), np.inf)
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
    return owner.astype(np.int32)


class _Filling:
    """Assigns blocks one after the other; after each, the sizes of all clusters differ by at most one."""

    def __init__(self, centres: Floats) -> None:
        self.centres = centres
        self.sizes = np.zeros(len(centres), np.int64)

    def __call__(self, block: Floats) -> Codes:
        step = max(1, _CELLS // len(self.centres))
        parts = [self._assign(block[start : start + step]) for start in range(0, len(block), step)]
        return np.concatenate(parts)

    def _assign(self, rows: Floats) -> Codes:
        costs = squared_distances(rows, self.centres)
        least, larger = divmod(int(self.sizes.sum()) + len(rows), len(self.centres))
        wanted = np.bincount(costs.argmin(axis=1), minlength=len(self.centres))
        first = np.lexsort((np.arange(len(wanted)), -wanted, self.sizes <= least))
        aims = np.full(len(wanted), least)
        aims[first[:larger]] += 1
        codes = balanced_assignment(costs, aims - self.sizes)
        self.sizes = aims
        return codes


class BalancedKMeansTokenizer(ResidualTokenizer):
    """The recipe ``balanced_kmeans``: at each level the numbers of training items per code differ by at most one."""

    name: ClassVar[str] = "balanced_kmeans"
    settings_class: ClassVar[type[ResidualSettings]] = BalancedKMeansSettings

    def fit_level(self, residuals: Vectors, training: Mask, seed: int) -> tuple[Floats, Callable[[Floats], Codes]]:
        """Balanced k-means of the residuals, or of a sample where items times codes are too many to hold.

        The items then get their codes block by block, each block within what keeps the sizes equal.
        """
        settings = self.settings
        assert isinstance(settings, BalancedKMeansSettings)
        size = min(settings.codebook_size * settings.sample_per_code, max(1, _CELLS // settings.codebook_size))
        rows = take(residuals, sampled_rows(training, size, seed))
        centres = kmeans_centres(rows, settings, seed)
        before: Codes | None = None
        for _ in range(settings.balanced_iterations):
            codes = _Filling(centres)(rows)
            if before is not None and (codes == before).all():
                break
            before = codes
            counts = np.bincount(codes, minlength=len(centres))
            sums = np.zeros(centres.shape)
            np.add.at(sums, codes, rows)
            used = counts > 0
            centres = centres.copy()
            centres[used] = (sums[used] / counts[used, None]).astype(np.float32)
        return centres, _Filling(centres)
