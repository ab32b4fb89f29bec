"""Residual k-means: each level quantises the residual of the previous ones; shared by the k-means recipes.

Fits use training items only. Vectors in memory are clustered at once; streamed ones start from a uniform sample and
continue with mini-batches. The fit runs in one Ray task with at most ``ray.cpus_per_worker`` threads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from infra.errors import SettingError
from infra.progress import Progress
from ray_jobs.recipes.tokenizers.settings import ResidualSettings
from ray_jobs.tokenizers.base import Codes, FitContext, Fitted, Quantiser
from ray_jobs.tokenizers.joining import make_codebook
from ray_jobs.tokenizers.kmeans import kmeans_centres, nearest, squared_distances
from ray_jobs.tokenizers.vectors import Floats, Mask, Rows, Vectors, standardisation

_DISTINCT_IN = 4
"""As many rows as codebooks have codes, times this, mostly show that there are enough distinct ones."""


@dataclass(frozen=True, eq=False)
class ResidualQuantiser:
    """Centres of each level for vectors that are shifted, scaled and projected.

    Args:
        mean, scale: float32[D].
        basis: float32[D, P] with orthonormal columns; None for no projection.
        centres: per level float32[K, P].
    """

    mean: Floats
    scale: Floats
    basis: Floats | None = None
    centres: tuple[Floats, ...] = ()

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(len(level) for level in self.centres)

    def projected(self, vectors: Floats) -> Floats:
        """Input float32[N, P] of the first level."""
        moved = ((vectors - self.mean) / self.scale).astype(np.float32)
        return moved if self.basis is None else moved @ self.basis

    def residual(self, vectors: Floats, codes: Codes) -> Floats:
        """Residuals float32[N, P] after the levels of `codes` int32[N, l]."""
        rest = self.projected(vectors)
        for centres, picked in zip(self.centres, codes.T, strict=False):
            rest = rest - centres[picked]
        return rest

    def encode(self, vectors: Floats) -> Codes:
        """The nearest centre at each level, int32[N, L]."""
        rest, codes = self.projected(vectors), []
        for centres in self.centres:
            codes.append(nearest(rest, centres))
            rest = rest - centres[codes[-1]]
        return np.stack(codes, axis=1)

    def decode(self, codes: Codes) -> Floats:
        """The sum of the centres, back in the units of the vectors."""
        sums = sum(centres[picked] for centres, picked in zip(self.centres, codes.T, strict=True))
        back = sums if self.basis is None else sums @ self.basis.T
        return (back * self.scale + self.mean).astype(np.float32)

    def last_level_distances(self, vectors: Floats, codes: Codes) -> Floats:
        """See `Quantiser.last_level_distances`."""
        return squared_distances(self.residual(vectors, codes[:, :-1]), self.centres[-1])

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See `Quantiser.tensors`."""
        basis = {} if self.basis is None else {"basis": self.basis}
        levels = {f"centres.{level}": centres for level, centres in enumerate(self.centres)}
        return {"mean": self.mean, "scale": self.scale, **basis, **levels}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> "ResidualQuantiser":
        """The inverse of `tensors`."""
        levels = sum(name.startswith("centres.") for name in tensors)
        centres = tuple(tensors[f"centres.{level}"] for level in range(levels))
        return cls(tensors["mean"], tensors["scale"], tensors.get("basis"), centres)


@dataclass(frozen=True, eq=False)
class Residuals:
    """The residuals of `vectors` after the levels of `quantiser`, as `Vectors`.

    Args:
        codes: int32[N, l], codes of these levels; needed only for the rows that are read.
    """

    vectors: Vectors
    quantiser: ResidualQuantiser
    codes: Codes

    @property
    def shape(self) -> tuple[int, int]:
        """N and P."""
        rows, width = self.vectors.shape
        return rows, width if self.quantiser.basis is None else self.quantiser.basis.shape[1]

    @property
    def streamed(self) -> bool:
        """See `Vectors.streamed`."""
        return self.vectors.streamed

    def blocks(self, only: Mask | None = None) -> Iterator[tuple[Rows, Floats]]:
        """See `Vectors.blocks`."""
        for rows, block in self.vectors.blocks(only):
            yield rows, self.quantiser.residual(block, self.codes[rows])


class ResidualTokenizer(ABC):
    """Base of the k-means recipes, which define the fit of one level."""

    name: ClassVar[str]

    def __init__(self, settings: ResidualSettings) -> None:
        self.settings = settings

    @abstractmethod
    def fit_level(self, residuals: Vectors, training: Mask, seed: int) -> tuple[Floats, Callable[[Floats], Codes]]:
        """Fit one level.

        Returns:
            Centres float32[K, P], and a function that assigns codes to the training items, called on their blocks in
            order.
        """

    def fit(self, vectors: Vectors, item_ids: list[str], context: FitContext) -> Fitted:
        """Fit on the items of ``context.training`` in a Ray task and assign codes to all items.

        A streamed fit leaves one of the worker's CPUs to Ray Data.

        Raises:
            SettingError: a setting does not fit the vectors or the catalogue.
        """
        import ray

        from ray_jobs.cluster import connect

        settings, width = self.settings, vectors.shape[1]
        if settings.pca > width:
            raise SettingError(
                f"{settings.section}.pca is {settings.pca}, but the vectors have {width} dimensions: lower it, or 0 "
                "for none"
            )
        Progress(context.home, context.stage).update(0, 1, f"k-means over {int(context.training.sum()):,} items")
        connect()
        cpus = context.ray.cpus_per_worker
        task: Any = ray.remote(_fit_in_task)
        quantiser, codes, records = ray.get(
            task.options(num_cpus=max(0.0, cpus - 1) if vectors.streamed else cpus).remote(
                self, vectors, context.training, max(1, int(cpus))
            )
        )
        codebook = make_codebook(codes, item_ids, vectors, quantiser, settings, context)
        return Fitted(codebook=codebook, quantised_levels=settings.levels, quantiser=quantiser, records=records)

    def restore(self, tensors: Mapping[str, npt.NDArray[Any]]) -> Quantiser:
        """See `Tokenizer.restore`."""
        return ResidualQuantiser.from_tensors(tensors)

    def fit_levels(self, vectors: Vectors, training: Mask) -> tuple[ResidualQuantiser, Codes, list[dict[str, float]]]:
        """Fit level after level on the training items, then assign codes to all items.

        Training items get the codes of `fit_level`, other items the nearest centres.

        Returns:
            The quantiser, codes int32[N, L], and per level ``epoch`` (from 1) and ``loss``, the mean squared residual
            per dimension over training items.
        """
        settings = self.settings
        quantiser = _start(vectors, training, settings)
        codes = np.zeros((vectors.shape[0], settings.levels), np.int32)
        records = []
        for level in range(settings.levels):
            residuals = Residuals(vectors, quantiser, codes[:, :level])
            centres, assign = self.fit_level(residuals, training, settings.seed * 1009 + level)
            error, count = 0.0, 0
            for rows, block in residuals.blocks(training):
                picked = assign(block)
                codes[rows, level] = picked
                error += float(np.square(block - centres[picked], dtype=np.float64).sum())
                count += block.size
            quantiser = replace(quantiser, centres=(*quantiser.centres, centres))
            records.append({"epoch": level + 1, "loss": error / count})
        if not training.all():
            for rows, block in vectors.blocks(~training):
                codes[rows] = quantiser.encode(block)
        return quantiser, codes, records


def _start(vectors: Vectors, training: Mask, settings: ResidualSettings) -> ResidualQuantiser:
    """The quantiser without levels: shift, scale and projection of the training items."""
    mean, scale = standardisation(vectors, training)
    shift = mean if settings.standardise or settings.pca else np.zeros_like(mean)
    plain = ResidualQuantiser(shift, scale if settings.standardise else np.ones_like(scale))
    if settings.pca == 0:
        return plain
    scatter = np.zeros((len(mean), len(mean)))
    for _, block in vectors.blocks(training):
        rows = plain.projected(block).astype(np.float64)
        scatter += rows.T @ rows
    basis = np.linalg.eigh(scatter)[1][:, ::-1][:, : settings.pca]
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(settings.pca)])
    return replace(plain, basis=np.ascontiguousarray(basis * signs, dtype=np.float32))


def level_centres(rows: Floats, settings: ResidualSettings, seed: int) -> Floats:
    """Centres float32[K, P] of float32[n, P] by k-means.

    With fewer distinct rows than codes, the last centre is repeated, and no row is assigned to the repetitions.
    """
    size = settings.codebook_size
    few = len(np.unique(rows[: _DISTINCT_IN * size], axis=0)) < size
    clusters = min(size, len(np.unique(rows, axis=0))) if few else size
    centres = kmeans_centres(rows, clusters, settings.iterations, seed % 2**31)
    return centres[np.minimum(np.arange(size), clusters - 1)]


def _fit_in_task(
    tokenizer: ResidualTokenizer, vectors: Vectors, training: Mask, threads: int
) -> tuple[ResidualQuantiser, Codes, list[dict[str, float]]]:
    import faiss
    import torch

    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    return tokenizer.fit_levels(vectors, training)
