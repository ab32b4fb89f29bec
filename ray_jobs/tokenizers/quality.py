"""How good a quantiser is: use of its codes, collisions, reconstruction, and what becomes of neighbours."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizers.collisions import collision_groups

NEIGHBOURS = 10
_QUERIES = 2_000
_QUERIES_AT_ONCE = 256

Floats = npt.NDArray[np.float32]


def quality_report(
    codes: npt.NDArray[np.int32], level_sizes: Sequence[int], vectors: Floats, reconstructions: Floats
) -> dict[str, float]:
    """Measures of a quantiser on N items.

    Args:
        codes: int32[N, H], without the level that tells collisions apart.
        level_sizes: vocabulary per level, H numbers.
        vectors: float32[N, D], what was quantised.
        reconstructions: float32[N, D], what the codes decode to, in the same units.

    Returns:
        Per level ``utilisation_<l>`` (share of codes in use) and ``perplexity_<l>`` (exp of the entropy of use);
        ``collision_rate`` (share of items that share their tuple with another), ``largest_collision``;
        ``reconstruction_mse``, ``variance_explained`` (1 - squared error / variance around the mean);
        ``neighbours_kept`` (share of an item's ten cosine neighbours that are still among its ten neighbours after
        decoding, on at most 2,000 items); ``nearest_same_first_code`` (share of items whose nearest neighbour has
        the same first code) and ``any_same_first_code`` (the same for a random other item).
    """
    measures: dict[str, float] = {}
    for level, size in enumerate(level_sizes):
        share = np.bincount(codes[:, level], minlength=size) / len(codes)
        used = share[share > 0]
        measures[f"utilisation_{level}"] = len(used) / size
        measures[f"perplexity_{level}"] = float(np.exp(-(used * np.log(used)).sum()))
    sizes = np.bincount(collision_groups(codes))
    measures["collision_rate"] = float(sizes[sizes > 1].sum() / len(codes))
    measures["largest_collision"] = float(sizes.max())
    errors = vectors.astype(np.float64) - reconstructions
    spread = vectors.astype(np.float64) - vectors.mean(axis=0)
    measures["reconstruction_mse"] = float((errors**2).mean())
    measures["variance_explained"] = float(1 - (errors**2).sum() / max((spread**2).sum(), 1e-12))
    measures |= _neighbour_measures(codes[:, 0], vectors, reconstructions)
    return measures


def _neighbour_measures(first_codes: npt.NDArray[np.int32], vectors: Floats, decoded: Floats) -> dict[str, float]:
    items = len(vectors)
    wanted = min(NEIGHBOURS, items - 1)
    if wanted < 1:
        return {}
    queries = np.random.default_rng(0).permutation(items)[:_QUERIES]
    before = _nearest(vectors, queries, wanted)
    after = _nearest(decoded, queries, wanted)
    kept = (before[:, :, None] == after[:, None, :]).any(axis=2).mean()
    counts = np.bincount(first_codes)
    return {
        "neighbours_kept": float(kept),
        "nearest_same_first_code": float((first_codes[before[:, 0]] == first_codes[queries]).mean()),
        "any_same_first_code": float((counts * (counts - 1)).sum() / (items * (items - 1))),
    }


def _nearest(vectors: Floats, queries: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
    """Rows of the `wanted` nearest others of each query by cosine, nearest first, int64[Q, wanted]."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        rows = queries[start : start + _QUERIES_AT_ONCE]
        similarity = unit[rows] @ unit.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        found.append(np.argsort(-similarity, axis=1, kind="stable")[:, :wanted])
    return np.concatenate(found)
