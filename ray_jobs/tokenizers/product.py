"""Optimised product quantisation: a rotation, then one code for each part of a vector (Ge et al., 2013)."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Floats = npt.NDArray[np.float32]
_ITERATIONS = 20
"""Alternations of rotation and codebooks."""
_ROWS = 4096
_FLAT = 1e-6
"""Principal components with a smaller share of the largest variance are noise, and are not scaled up."""


class ProductQuantiser(nn.Module):
    """Principal components, rotated and cut into parts of equal width, each with a codebook of its own.

    Its state are buffers, NaN until `fit`, so that a model keeps it and vectors of later items get codes of the same
    meaning.

    Args:
        dim: width D of the vectors.
        digits: number of codes C of a vector; divides `components`.
        codebook_size: codes K per digit.
        components: principal components P, at most D.
    """

    def __init__(self, dim: int, digits: int, codebook_size: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((dim,), torch.nan))
        self.register_buffer("basis", torch.full((dim, components), torch.nan))
        self.register_buffer("centres", torch.full((digits, codebook_size, components // digits), torch.nan))

    mean: Tensor
    basis: Tensor
    centres: Tensor

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, here or before the state was saved."""
        return not bool(self.mean[0].isnan())

    def fit(self, vectors: Floats, whiten: bool = True) -> None:
        """Learn from float32[n, D], with components scaled to variance 1 or as they are.

        With fewer vectors than codes, the rest of the codes is never assigned; with fewer than components, the
        principal axes are cut as they are, without a rotation.
        """
        import faiss

        digits, size, _ = self.centres.shape
        mean = vectors.mean(axis=0)
        basis = _principal_axes(vectors - mean, self.basis.shape[1], whiten)
        parts = np.ascontiguousarray((vectors - mean) @ basis)
        bits = int(math.log2(min(size, len(parts))))
        quantiser = faiss.ProductQuantizer(parts.shape[1], digits, bits)
        quantiser.cp.min_points_per_centroid = 1
        # faiss writes beyond its memory where a rotation has fewer vectors than components (as of 1.15).
        if len(parts) >= parts.shape[1]:
            rotation = faiss.OPQMatrix(parts.shape[1], digits)
            rotation.pq, rotation.niter = quantiser, _ITERATIONS
            rotation.train(parts)
            turn = faiss.vector_to_array(rotation.A).reshape(parts.shape[1], -1).T
            parts, basis = np.ascontiguousarray(parts @ turn), basis @ turn
        quantiser.train(parts)
        centres = faiss.vector_to_array(quantiser.centroids).reshape(digits, 2**bits, -1)
        self.mean.copy_(torch.from_numpy(mean))
        self.basis.copy_(torch.from_numpy(basis))
        self.centres.copy_(torch.from_numpy(centres[:, np.minimum(np.arange(size), 2**bits - 1)]))

    def codes(self, vectors: Tensor) -> Tensor:
        """The nearest code of each part, int64[N, C], of float[N, D]."""
        found = []
        for block in vectors.split(_ROWS):
            parts = ((block - self.mean) @ self.basis).unflatten(1, (len(self.centres), -1)).transpose(0, 1)
            found.append(torch.cdist(parts, self.centres).argmin(dim=2).T)
        return torch.cat(found)


def _principal_axes(centred: Floats, components: int, whiten: bool) -> Floats:
    """Principal axes float32[D, P]; if `whiten`, scaled to variance 1, and 0 for those without variance."""
    scatter = centred.T.astype(np.float64) @ centred / len(centred)
    variance, axes = np.linalg.eigh(scatter)
    variance, axes = variance[::-1][:components], axes[:, ::-1][:, :components]
    if not whiten:
        return np.ascontiguousarray(axes, dtype=np.float32)
    scale = np.where(variance > _FLAT * variance[0], np.maximum(variance, np.finfo(float).tiny) ** -0.5, 0.0)
    return (axes * scale).astype(np.float32)
