"""How much of the catalogue, and how much of what is popular, the recommended lists show."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
LIST_LENGTH = 10
"""Length of the lists that are measured; names of the measures end in it."""


def popularity_percentiles(counts: npt.ArrayLike) -> FloatArray:
    """Share of the catalogue that is less popular than each item, plus half of its ties, float64[N] in (0, 1).

    Args:
        counts: occurrences at training positions, [N].
    """
    values = np.asarray(counts)
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return (below + upto) / (2.0 * max(1, len(values)))


def places_of(lists: IntArray, items: int) -> IntArray:
    """How many of `lists`, int64[U, k] with -1 where one is shorter, each item is in, int64[N]."""
    return np.bincount(lists[lists >= 0], minlength=items)


def exposure(places: IntArray, targets: IntArray, counts: npt.ArrayLike) -> dict[str, float]:
    """Measures of the recommended lists, each name with the suffix ``_10``.

    Args:
        places: number of lists that each catalogue item is in, [N].
        targets: held-out items, int64[U].
        counts: occurrences of each catalogue item at training positions, [N].

    Returns:
        coverage: share of the catalogue in at least one list.
        gini: Gini coefficient of the number of lists that each item is in.
        popularity: mean popularity percentile of the recommended items, 0 to 1.
        popularity_bias: popularity minus that of the targets; 0 for lists as popular as what users chose.
        novelty: mean self-information of the recommended items in bits, -log2 of an item's share of the training
            positions after add-one smoothing.
    """
    count = np.asarray(counts, dtype=np.float64)
    percentiles = popularity_percentiles(count)
    information = -np.log2((count + 1) / (count.sum() + len(count)))
    share = places / max(1, places.sum())
    popularity = float(share @ percentiles)
    measures = {
        "coverage": float((places > 0).mean()),
        "gini": gini(places),
        "popularity": popularity,
        "popularity_bias": popularity - float(percentiles[targets].mean()),
        "novelty": float(share @ information),
    }
    return {f"{name}_{LIST_LENGTH}": value for name, value in measures.items()}


def gini(amounts: npt.ArrayLike) -> float:
    """Gini coefficient of non-negative amounts, 0 to 1 - 1/N; 0 if all are 0."""
    values = np.sort(np.asarray(amounts, dtype=np.float64))
    total = values.sum()
    if total == 0:
        return 0.0
    places = np.arange(1, len(values) + 1)
    return float(((2 * places - len(values) - 1) * values).sum() / (len(values) * total))
