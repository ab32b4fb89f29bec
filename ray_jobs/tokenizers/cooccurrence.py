"""The co-occurrence graph of items, as a tree of clusters or as vectors.

The graph is stored as users' sets of items; the weight of a link is the number of users with both items. Only small
parts of it are ever stored as pairs.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ray_jobs.tokenizers.base import Floats
from ray_jobs.tokenizers.collisions import running_numbers

IntArray = npt.NDArray[np.int64]

SPECTRAL_ITEMS = 5_000
_KMEANS_STEPS = 25
_BOUNDED_STEPS = 5


class Cooccurrence:
    """The graph of `items` rows with the links of `sequences`, whose order does not matter."""

    def __init__(self, sequences: Sequence[IntArray], items: int) -> None:
        sets = sorted((np.unique(sequence) for sequence in sequences), key=lambda rows: rows.tobytes())
        sets = [rows for rows in sets if len(rows) > 1]
        ends = np.cumsum([0, *(len(rows) for rows in sets)])
        rows = np.concatenate(sets) if sets else np.zeros(0, np.int64)
        have = sp.csr_matrix((np.ones(len(rows)), rows, ends), shape=(len(sets), items))
        self._users_of = have.T.tocsr()

    def links(self, rows: IntArray) -> npt.NDArray[np.float64]:
        """Total weight float64[n] of the links of each of `rows` to the others."""
        part = self._users_of[rows]
        each = np.asarray(part.sum(0)).ravel()
        return part @ each - np.asarray(part.sum(1)).ravel()

    def affinity(self, rows: IntArray) -> sp.csr_matrix:
        """Weights of the links between `rows`, [n, n]; zero on the diagonal."""
        part = self._users_of[rows]
        counts = part @ part.T
        links = sp.csr_matrix(counts - sp.diags(counts.diagonal()))
        links.eliminate_zeros()
        return links

    def vectors(self, rows: IntArray, width: int, seed: int) -> Floats:
        """Leading eigenvectors float32[n, W] of the normalised graph on `rows`, times the root of their eigenvalues.

        Linked items have self-links; items without links have zeros. W is at most `width`.
        """
        part = self._users_of[rows]
        part = part[:, np.flatnonzero(part.getnnz(axis=0) > 1)]
        degrees = part @ np.asarray(part.sum(0)).ravel()
        scaled = sp.csr_matrix(sp.diags(1 / np.sqrt(np.maximum(degrees, 1))) @ part)
        width = min(width, min(scaled.shape) - 1)
        if width < 1:
            return np.zeros((len(rows), 1), np.float32)
        from sklearn.decomposition import TruncatedSVD

        return TruncatedSVD(width, random_state=seed).fit_transform(scaled).astype(np.float32)

    def tree(self, rows: IntArray, clusters: int, leaf: int, depth: int, seed: int) -> list[tuple[int, ...]]:
        """Path of each of `rows` in a tree of clusters: at each step, the number of the child.

        Args:
            clusters: children of a node with links.
            leaf: maximum number of items of a leaf, above `depth`.
            depth: maximum depth.
            seed: of the clusterings.
        """
        paths: dict[int, tuple[int, ...]] = {}
        waiting: list[tuple[tuple[int, ...], IntArray]] = [((), rows)]
        while waiting:
            path, members = waiting.pop()
            if path and (len(members) <= leaf or len(path) == depth):
                paths.update(dict.fromkeys(members.tolist(), path))
                continue
            parts = self._parts(members, clusters, leaf, seed)
            waiting += [((*path, number), part) for number, part in enumerate(parts)]
        return [paths[row] for row in rows.tolist()]

    def _parts(self, rows: IntArray, clusters: int, leaf: int, seed: int) -> list[IntArray]:
        """Clusters of the linked items of `rows`; items without links, or all if there is one cluster, in chunks."""
        linked = self.links(rows) > 0
        inside, alone = rows[linked], rows[~linked]
        labels = self._labels(inside, clusters, seed) if len(inside) > clusters else np.zeros(len(inside), np.int64)
        parts = [inside[labels == label] for label in np.unique(labels)]
        if len(parts) == 1 and not len(alone):
            return chunks(rows, leaf)
        return parts + chunks(alone, leaf)

    def _labels(self, rows: IntArray, clusters: int, seed: int) -> IntArray:
        if len(rows) > SPECTRAL_ITEMS:
            vectors = self.vectors(rows, clusters, seed)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            return kmeans(vectors, clusters, seed)[0]
        from sklearn.cluster import SpectralClustering

        clustering = SpectralClustering(clusters, affinity="precomputed", assign_labels="cluster_qr", random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Graph is not fully connected")
            return clustering.fit_predict(self.affinity(rows)).astype(np.int64)


def chunks(rows: IntArray, size: int) -> list[IntArray]:
    """`rows` in order, cut into chunks of `size`."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def kmeans(vectors: Floats, clusters: int, seed: int) -> tuple[IntArray, Floats]:
    """Cluster int64[n] of each of `vectors` float32[n, D], and the centres float32[clusters, D]."""
    import faiss

    fitted = faiss.Kmeans(vectors.shape[1], clusters, niter=_KMEANS_STEPS, seed=seed, min_points_per_centroid=1)
    fitted.train(np.ascontiguousarray(vectors))
    assert fitted.centroids is not None
    return fitted.index.search(np.ascontiguousarray(vectors), 1)[1].reshape(-1), fitted.centroids


def balanced_codes(vectors: Floats, branches: int, seed: int) -> npt.NDArray[np.int32]:
    """Two levels of clusters, top down (ColaRec, Wang et al. 2024).

    Args:
        vectors: float32[n, D], n at most ``branches ** 3``.
        branches: clusters per level; each has at most ``branches ** 2`` items, then `branches`.
        seed: of k-means.

    Returns:
        int32[n, 2].
    """
    codes = np.zeros((len(vectors), 2), np.int32)
    codes[:, 0] = bounded_kmeans(vectors, branches, branches**2, seed)
    for code in np.unique(codes[:, 0]):
        rows = np.flatnonzero(codes[:, 0] == code)
        codes[rows, 1] = bounded_kmeans(vectors[rows], branches, branches, seed)
    return codes


def bounded_kmeans(vectors: Floats, clusters: int, most: int, seed: int) -> IntArray:
    """Cluster int64[n] of each of `vectors` float32[n, D], with at most `most` items per cluster.

    k-means, then a few rounds of bounded assignment and new centres.
    """
    if len(vectors) <= clusters:
        return np.arange(len(vectors))
    labels, centres = kmeans(vectors, clusters, seed)
    if np.bincount(labels).max() <= most:
        return labels
    for _ in range(_BOUNDED_STEPS):
        away = np.square(vectors).sum(1, keepdims=True) - 2 * vectors @ centres.T + np.square(centres).sum(1)
        labels = place(away, most)
        members = np.eye(clusters, dtype=np.float32)[labels]
        taken = members.sum(axis=0)[:, None]
        centres = np.where(taken > 0, members.T @ vectors / np.maximum(taken, 1), centres)
    return labels


def place(cost: npt.NDArray[np.float32], most: int) -> IntArray:
    """Column of each row of `cost` float32[n, K], at most `most` rows per column; n is at most K times `most`.

    A stable matching (Gale and Shapley 1962): rows propose to their cheapest column, a column keeps its cheapest rows,
    and rejected rows propose to the next one.
    """
    preferences = np.argsort(cost, axis=1, kind="stable")
    rows, choice = np.arange(len(cost)), np.zeros(len(cost), np.int64)
    while True:
        labels = preferences[rows, choice]
        rejected = running_numbers(labels, np.argsort(cost[rows, labels], kind="stable")) >= most
        if not rejected.any():
            return labels
        choice[rejected] += 1
