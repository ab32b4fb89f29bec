"""What the recommended lists as a whole look like: how much of the catalogue, and how much of what is popular."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
LIST_LENGTH = 10
"""Items of each list that are looked at; names of the measures end in it."""


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Measures of the lists of all users.

    Args:
        coverage: share of the catalogue that is in at least one list.
        gini: Gini coefficient of how many lists each catalogue item is in; 0 when all are in equally many, close
            to 1 when few items take all places.
        popularity: mean popularity percentile of the recommended places, 0 to 1 (`popularity_percentiles`).
        target_popularity: the same of the held-out targets.
        novelty: mean self-information of the recommended places in bits, -log2 of an item's share of the training
            positions with one added to every count.
    """

    coverage: float
    gini: float
    popularity: float
    target_popularity: float
    novelty: float

    @property
    def popularity_bias(self) -> float:
        """How much more popular than what users went on to choose; 0 for lists like the targets."""
        return self.popularity - self.target_popularity

    def measures(self) -> dict[str, float]:
        """By the names that are logged."""
        return {
            f"coverage_{LIST_LENGTH}": self.coverage,
            f"gini_{LIST_LENGTH}": self.gini,
            f"popularity_{LIST_LENGTH}": self.popularity,
            f"popularity_bias_{LIST_LENGTH}": self.popularity_bias,
            f"novelty_{LIST_LENGTH}": self.novelty,
        }


def popularity_percentiles(counts: npt.ArrayLike) -> FloatArray:
    """Share of the catalogue that is less popular than each item, half of its equals included, float64[N] in (0, 1).

    Args:
        counts: occurrences at training positions, [N].
    """
    values = np.asarray(counts)
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return (below + upto) / (2.0 * max(1, len(values)))


def exposure(lists: IntArray, targets: IntArray, counts: npt.ArrayLike) -> Exposure:
    """Measure recommended lists.

    Args:
        lists: catalogue indices int64[U, k], -1 where a list is shorter.
        targets: the held-out items, int64[U].
        counts: occurrences of each catalogue item at training positions, [N].
    """
    count = np.asarray(counts, dtype=np.float64)
    placed = lists[lists >= 0]
    shown = np.bincount(placed, minlength=len(count))
    percentiles = popularity_percentiles(count)
    information = -np.log2((count + 1) / (count.sum() + len(count)))
    return Exposure(
        coverage=float((shown > 0).mean()),
        gini=gini(shown),
        popularity=float(percentiles[placed].mean()) if len(placed) else 0.0,
        target_popularity=float(percentiles[targets].mean()),
        novelty=float(information[placed].mean()) if len(placed) else 0.0,
    )


def gini(amounts: npt.ArrayLike) -> float:
    """Gini coefficient of non-negative amounts, 0 to 1 - 1/N; 0 where there is nothing to share out."""
    values = np.sort(np.asarray(amounts, dtype=np.float64))
    total = values.sum()
    if total == 0:
        return 0.0
    places = np.arange(1, len(values) + 1)
    return float(((2 * places - len(values) - 1) * values).sum() / (len(values) * total))
