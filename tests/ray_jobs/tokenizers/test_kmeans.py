"""k-means finds the centres that faiss finds, whichever way it multiplies and whatever rows are equal."""

import faiss
import numpy as np
import pytest

from ray_jobs.tokenizers import kmeans
from ray_jobs.tokenizers.kmeans import kmeans_centres
from ray_jobs.training import linear


def by_faiss(rows, clusters, iterations, seed):
    fitted = faiss.Kmeans(
        rows.shape[1], clusters, niter=iterations, seed=seed, min_points_per_centroid=1, max_points_per_centroid=10**6
    )
    fitted.train(rows)
    return fitted.centroids


def clustered(count, width):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, width))[rng.integers(40, size=count)] + 0.4 * rng.normal(size=(count, width))
    return rows.astype(np.float32)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("iterations", [1, 20])
def test_the_centres_are_those_of_faiss(monkeypatch, slow, iterations):
    monkeypatch.setattr(linear, "_MKL_IS_SLOW", slow)
    monkeypatch.setattr(kmeans, "_CELLS", 2**14)  # several blocks
    rows = clustered(1500, 256)
    np.testing.assert_allclose(kmeans_centres(rows, 32, iterations, 7), by_faiss(rows, 32, iterations, 7), atol=1e-5)


def test_rows_are_left_out_only_where_their_centre_is_sure(monkeypatch):
    compared = []
    nearest_two = kmeans._nearest_two

    def seen(rows, squares, due, centres):
        compared.append(len(due))
        return nearest_two(rows, squares, due, centres)

    monkeypatch.setattr(kmeans, "_nearest_two", seen)
    rows = clustered(1500, 16)
    np.testing.assert_allclose(kmeans_centres(rows, 32, 25, 1), by_faiss(rows, 32, 25, 1), atol=1e-5)
    assert sum(compared) < 0.8 * 1500 * len(compared)


@pytest.mark.parametrize("distinct", [12, 32, 60])
def test_equal_rows_go_the_way_of_faiss(distinct):
    rows = clustered(distinct, 16)[np.random.default_rng(0).integers(distinct, size=300)]
    assert np.array_equal(kmeans_centres(rows, 12, 10, 2), by_faiss(rows, 12, 10, 2))


def test_as_many_centres_as_rows():
    rows = clustered(12, 16)
    assert np.array_equal(kmeans_centres(rows, 12, 10, 2), by_faiss(rows, 12, 10, 2))
