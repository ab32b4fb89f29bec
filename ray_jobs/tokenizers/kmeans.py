"""Lloyd's k-means with the centres that faiss finds, in less time.

The first centres are those of faiss's ``Kmeans``, and sums are taken in the same order. Time is saved twice: products
run in the faster library (see `ray_jobs.training.linear`), and a row is compared with the centres again only if their
moves since the last time can have brought another one closer (Hamerly, 2010). Where first centres are equal or a
cluster loses all of its rows, faiss does the work, which has its own order among equals and splits clusters.
"""

import numpy as np
import numpy.typing as npt
import torch

from ray_jobs.training.linear import by_onednn, linear

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]

_CELLS = 2**20
_ERROR = 1e-5
"""Of a squared distance, relative to the largest squared norm."""
_MOST = 0.9
"""If more of the rows are due, all are compared, which saves a copy."""


def squared_distances(vectors: Floats, centres: Floats) -> Floats:
    """Squared Euclidean distances, float32[N, K], of float32[N, D] and float32[K, D]."""
    x, weight = torch.from_numpy(vectors), torch.from_numpy(centres)
    distances: Floats = linear(x, weight).numpy() if by_onednn(x, weight) else vectors @ centres.T
    distances *= -2
    distances += np.square(vectors).sum(1, keepdims=True)
    distances += np.square(centres).sum(1)
    return np.maximum(distances, 0, out=distances)


def nearest(vectors: Floats, centres: Floats) -> npt.NDArray[np.int32]:
    """Index of the nearest centre, int32[N]; the lowest one in a tie."""
    codes = np.empty(len(vectors), np.int32)
    for start, end in _ranges(len(vectors), len(centres)):
        codes[start:end] = squared_distances(vectors[start:end], centres).argmin(1)
    return codes


def kmeans_centres(rows: Floats, clusters: int, iterations: int, seed: int) -> Floats:
    """Centres float32[`clusters`, D] of `rows` float32[n, D] after so many iterations; n is at least `clusters`."""
    import faiss

    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if len(rows) == clusters:
        return rows
    order = np.empty(len(rows), np.int32)
    faiss.rand_perm(faiss.swig_ptr(order), len(rows), seed + 1)  # type: ignore[attr-defined]
    centres = rows[order[:clusters]]
    found = None if len(np.unique(centres, axis=0)) < clusters else _lloyd(rows, centres, iterations)
    if found is not None:
        return found
    kmeans = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    kmeans.train(rows)
    return np.asarray(kmeans.centroids, np.float32)


def _lloyd(rows: Floats, centres: Floats, iterations: int) -> Floats | None:
    """The centres that `centres` become; None if a cluster loses all of its rows."""
    squares = np.square(rows).sum(1)
    codes = np.full(len(rows), -1)
    own, others = np.full(len(rows), np.inf, np.float32), np.zeros(len(rows), np.float32)
    everything = np.arange(len(rows))
    for _ in range(iterations):
        due = np.flatnonzero(own >= others)
        if len(due) > _MOST * len(rows):
            due = everything
        found, own[due], others[due] = _nearest_two(rows, squares, due, centres)
        if (found == codes[due]).all():
            break
        codes[due] = found
        counts = np.bincount(codes, minlength=len(centres))
        if not counts.all():
            return None
        moved = _means(rows, codes, counts)
        moves = np.sqrt(np.square(moved - centres).sum(1))
        own += moves[codes]
        others -= moves.max()
        centres = moved
    return centres


def _ranges(rows: int, centres: int) -> list[tuple[int, int]]:
    step = max(1, _CELLS // centres)
    return [(start, min(rows, start + step)) for start in range(0, rows, step)]


def _nearest_two(rows: Floats, squares: Floats, due: Codes, centres: Floats) -> tuple[Codes, Floats, Floats]:
    """Nearest centre of `rows` at `due`, at most how far it is, and at least how far all others are.

    Args:
        squares: float32[n], squared norms of all rows.
    """
    codes = np.empty(len(due), np.int64)
    own, others = np.empty(len(due), np.float32), np.empty(len(due), np.float32)
    weight, bias = torch.from_numpy(-2 * centres), torch.from_numpy(np.square(centres).sum(1))
    for start, end in _ranges(len(due), len(centres)):
        chosen = due[start:end]
        whole = chosen[-1] - chosen[0] + 1 == len(chosen)
        x = rows[chosen[0] : chosen[-1] + 1] if whole else rows[chosen]
        distances = linear(torch.from_numpy(x), weight, bias).numpy()  # less the squared norm of the row
        codes[start:end] = best = distances.argmin(1)
        places = np.arange(end - start)
        own[start:end] = distances[places, best]
        distances[places, best] = np.inf
        others[start:end] = distances.min(1)
    slack = _ERROR * squares.max()
    own, others = own + squares[due] + slack, others + squares[due] - slack
    return codes, np.sqrt(np.maximum(own, 0)), np.sqrt(np.maximum(others, 0))


def _means(rows: Floats, codes: Codes, counts: Codes) -> Floats:
    """Means of each cluster's rows, added up in their order."""
    sums = torch.zeros(len(counts), rows.shape[1]).index_add_(0, torch.from_numpy(codes), torch.from_numpy(rows))
    means: Floats = sums.numpy()
    means *= (np.float32(1) / counts.astype(np.float32))[:, None]
    return means
