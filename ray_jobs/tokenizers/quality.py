"""Quality of codes: utilisation, collisions, agreement with categories and neighbourhoods, reconstruction."""

from collections.abc import Iterator, Sequence

import faiss
import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizers.collisions import collision_groups

NEIGHBOURS = 10
_QUERIES = 2_000

Floats = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def quality_report(
    codes: npt.NDArray[np.int32],
    level_sizes: Sequence[int],
    vectors: Floats,
    reconstructions: Floats | None = None,
    categories: Sequence[Sequence[str]] | None = None,
) -> dict[str, float]:
    """Measures of the codes of N items.

    Args:
        codes: int32[N, H], without the collision level.
        level_sizes: vocabulary size per level, H numbers.
        vectors: float32[N, D], the quantised vectors, or others that define similarity.
        reconstructions: float32[N, D], the decoded codes; None leaves out ``reconstruction_mse``,
            ``variance_explained`` and ``neighbours_kept``.
        categories: path per item, empty if unknown; None leaves out the measures of purity.

    Returns:
        Per level l from 0 ``utilisation_<l>`` (share of used codes), ``dead_codes_<l>`` (number of unused codes) and
        ``perplexity_<l>`` (exp of the entropy of use); ``collision_rate`` (share of items that share their tuple),
        ``largest_collision``. Per number of first codes d from 1 ``purity_<d>`` (share of items with the most frequent
        category path among the items with the same d first codes) and ``neighbours_<d>`` (share of an item's ten
        cosine neighbours with the same d first codes, on at most 2,000 items), each with a baseline ``..._random``:
        permuted categories, or any other item. ``reconstruction_mse``, ``variance_explained`` (1 - squared error /
        variance), ``neighbours_kept`` (share of an item's ten neighbours that are also neighbours after decoding).
    """
    measures: dict[str, float] = {}
    for level, size in enumerate(level_sizes):
        share = np.bincount(codes[:, level], minlength=size) / len(codes)
        used = share[share > 0]
        measures[f"utilisation_{level}"] = len(used) / size
        measures[f"dead_codes_{level}"] = float(size - len(used))
        measures[f"perplexity_{level}"] = float(np.exp(-(used * np.log(used)).sum()))
    sizes = np.bincount(collision_groups(codes))
    measures["collision_rate"] = float(sizes[sizes > 1].sum() / len(codes))
    measures["largest_collision"] = float(sizes.max())
    if categories is not None:
        measures |= _purity(codes, categories)
    return measures | _of_vectors(codes, vectors, reconstructions)


def _purity(codes: npt.NDArray[np.int32], categories: Sequence[Sequence[str]]) -> dict[str, float]:
    known = np.flatnonzero([len(path) > 0 for path in categories])
    if not len(known):
        return {}
    numbers: dict[tuple[str, ...], int] = {}
    labels = np.array([numbers.setdefault(tuple(categories[row]), len(numbers)) for row in known.tolist()])
    permuted = np.random.default_rng(0).permutation(labels)
    measures = {}
    for depth, groups in _prefixes(codes[known]):
        for name, given in ((f"purity_{depth}", labels), (f"purity_{depth}_random", permuted)):
            pairs, counts = np.unique(groups * len(numbers) + given, return_counts=True)
            commonest = np.zeros(groups.max() + 1, np.int64)
            np.maximum.at(commonest, pairs // len(numbers), counts)
            measures[name] = float(commonest.sum() / len(known))
    return measures


def _of_vectors(codes: npt.NDArray[np.int32], vectors: Floats, decoded: Floats | None) -> dict[str, float]:
    measures = {}
    if decoded is not None:
        error = np.square(vectors - decoded).sum(dtype=np.float64)
        spread = np.square(vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)).sum(dtype=np.float64)
        measures["reconstruction_mse"] = float(error / vectors.size)
        measures["variance_explained"] = float(1 - error / max(spread, 1e-12))
    items = len(vectors)
    wanted = min(NEIGHBOURS, items - 1)
    if wanted < 1:
        return measures
    queries = np.random.default_rng(0).permutation(items)[:_QUERIES]
    near = _nearest(vectors, queries, wanted)
    if decoded is not None:
        after = _nearest(decoded, queries, wanted)
        measures["neighbours_kept"] = float((near[:, :, None] == after[:, None, :]).any(axis=2).mean())
    for depth, groups in _prefixes(codes):
        counts = np.bincount(groups)
        measures[f"neighbours_{depth}"] = float((groups[near] == groups[queries][:, None]).mean())
        measures[f"neighbours_{depth}_random"] = float((counts * (counts - 1)).sum() / (items * (items - 1)))
    return measures


def _prefixes(codes: npt.NDArray[np.int32]) -> Iterator[tuple[int, IntArray]]:
    """For each number of first codes, each row's group of equal prefixes, int64[N]."""
    groups = np.zeros(len(codes), np.int64)
    for level in range(codes.shape[1]):
        pairs = groups * (int(codes[:, level].max()) + 1) + codes[:, level]
        groups = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        yield level + 1, groups


def _nearest(vectors: Floats, queries: IntArray, wanted: int) -> IntArray:
    """Rows of the `wanted` nearest others of each query by cosine, nearest first, int64[Q, wanted]."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = faiss.knn(unit[queries], unit, wanted + 1, metric=faiss.METRIC_INNER_PRODUCT)[1]
    others_first = np.argsort(found == queries[:, None], axis=1, kind="stable")
    return np.take_along_axis(found, others_first, axis=1)[:, :wanted]
