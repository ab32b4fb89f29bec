"""The baseline without a language model: an item is suspect if it rarely co-occurs with the others of the list."""

from collections.abc import Collection, Sequence

import numpy as np
import scipy.sparse as sp

from ray_jobs.data.histories import Histories
from ray_jobs.denoiser.detect import Floats


class Cooccurrence:
    """Cosine similarity of items' sets of users, from training positions.

    Args:
        users: whose histories to count.
        items: size of the catalogue.
    """

    def __init__(self, histories: Histories, users: Sequence[int], items: int) -> None:
        rows = [np.unique(histories.training_items(user)) for user in users]
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        have = sp.csr_matrix((np.ones(indptr[-1]), np.concatenate(rows), indptr), shape=(len(rows), items))
        counts = np.maximum(np.asarray(have.sum(0)).ravel(), 1.0)
        scale = sp.diags(counts**-0.5)
        self._cosine = sp.csr_matrix(scale @ (have.T @ have) @ scale)
        self._cosine.setdiag(0)

    def scores(self, items: Sequence[int]) -> Floats:
        """Negative mean cosine of each listed item with the others, float64[K]; high is suspect."""
        within = self._cosine[list(items)][:, list(items)].toarray()
        return -within.sum(1) / max(1, len(items) - 1)

    def replacement(self, others: Sequence[int], taken: Collection[int]) -> int:
        """The item with the largest summed cosine to `others`, not among `taken`; the first one in a tie."""
        company = np.asarray(self._cosine[list(others)].sum(0)).ravel()
        company[sorted(taken)] = -1.0
        return int(company.argmax())
