"""Tokenizers that are trained by gradient descent: the module's interface, its quantiser and the fit."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ray_jobs.recipes.tokenizers.settings import AutoencoderSettings
from ray_jobs.tokenizers.base import Codes, FitContext, Fitted, Quantiser
from ray_jobs.tokenizers.joining import make_codebook
from ray_jobs.tokenizers.vectors import Floats, Vectors, standardisation
from ray_jobs.training.curves import epoch_losses
from ray_jobs.training.phases import Phase
from ray_jobs.training.trainable import BatchSource, Trainable

ROWS_AT_ONCE = 16_384


class VectorSource(BatchSource, Protocol):
    """A worker's standardised training vectors; a batch is float[B, D]."""

    @property
    def sample(self) -> Tensor:
        """float[n, D], the same on every worker: all vectors, or a sample that fits in memory."""

    def share(self, world: int) -> int:
        """Rows per epoch and worker."""


class Autoencoder(Trainable):
    """Encoder, quantiser and decoder over standardised vectors, float[B, D]."""

    additive = True
    by_example = True
    level_sizes: tuple[int, ...]

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        self.seed, self.batch_size = settings.seed, settings.batch_size
        self._phase = Phase(
            name="train",
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            schedule="constant",
            weight_decay=settings.weight_decay,
            decay_vectors=True,
            gradient_clip=math.inf,
            evaluate_every=settings.checkpoint_every,
        )

    def phases(self) -> tuple[Phase, ...]:
        """See `Trainable.phases`."""
        return (self._phase,)

    def steps(self, source: VectorSource, world: int) -> int:  # type: ignore[override]
        """See `Trainable.steps`."""
        return math.ceil(source.share(world) / self.batch_size)

    def epoch_seed(self, epoch: int) -> int:
        """See `Trainable.epoch_seed`."""
        return (self.seed * 1_000_003 + epoch) % 2**63

    @torch.no_grad()
    def quantise(self, vectors: Tensor) -> Tensor:
        """Codes int64[N, L] of float[N, D]."""
        return torch.cat([self.quantise_batch(rows) for rows in vectors.split(ROWS_AT_ONCE)])

    @torch.no_grad()
    def reconstruct(self, codes: Tensor) -> Tensor:
        """Reconstructions float[N, D] of codes int64[N, L]."""
        return torch.cat([self.reconstruct_batch(rows) for rows in codes.split(ROWS_AT_ONCE)])

    @abstractmethod
    def quantise_batch(self, vectors: Tensor) -> Tensor:
        """See `quantise`; for few rows."""

    @abstractmethod
    def reconstruct_batch(self, codes: Tensor) -> Tensor:
        """See `reconstruct`; for few rows."""

    def last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor | None:  # noqa: ARG002
        """See `ray_jobs.tokenizers.base.Quantiser.last_level_distances`."""
        return None


class AutoencoderQuantiser:
    """A trained module with the mean and scale of its inputs."""

    def __init__(self, module: Autoencoder, mean: Floats, scale: Floats) -> None:
        self.module, self.mean, self.scale = module.cpu().eval(), mean, scale

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return self.module.level_sizes

    def encode(self, vectors: Floats) -> Codes:
        """See `Quantiser.encode`."""
        return self.module.quantise(self._inputs(vectors)).numpy().astype(np.int32)

    def decode(self, codes: Codes) -> Floats:
        """See `Quantiser.decode`."""
        decoded: Floats = self.module.reconstruct(torch.from_numpy(codes.astype(np.int64))).numpy()
        return decoded * self.scale + self.mean

    @torch.no_grad()
    def last_level_distances(self, vectors: Floats, codes: Codes) -> Floats | None:
        """See `Quantiser.last_level_distances`."""
        picked = torch.from_numpy(codes.astype(np.int64))
        distances = self.module.last_level_distances(self._inputs(vectors), picked)
        return None if distances is None else distances.numpy()

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See `Quantiser.tensors`."""
        state = {f"module.{name}": value.numpy() for name, value in self.module.state_dict().items()}
        return {"mean": self.mean, "scale": self.scale, **state}

    def _inputs(self, vectors: Floats) -> Tensor:
        return torch.from_numpy(((vectors - self.mean) / self.scale).astype(np.float32, copy=False))


class AutoencoderTokenizer(ABC):
    """Base of the recipes that train a module on Ray Train."""

    name: ClassVar[str]

    def __init__(self, settings: AutoencoderSettings) -> None:
        self.settings = settings

    @abstractmethod
    def build(self, width: int) -> Autoencoder:
        """The untrained module for standardised vectors of that width.

        Raises:
            SettingError: a setting does not fit the width.
        """

    def fit(self, vectors: Vectors, item_ids: list[str], context: FitContext) -> Fitted:
        """Train on the items of ``context.training`` and assign codes to all items.

        Raises:
            SettingError: the cluster is too small, a setting does not fit the vectors or the catalogue, or the run name
                belongs to a run with other settings or vectors.
        """
        from ray_jobs.tokenizers.autoencoder_training import train

        module = self.build(vectors.shape[1])
        mean, scale = standardisation(vectors, context.training)
        outcome = train(self, vectors, (mean, scale), context)
        module.load_trained_state(outcome.state.trained)
        quantiser = AutoencoderQuantiser(module, mean, scale)
        codes = np.empty((vectors.shape[0], len(module.level_sizes)), np.int32)
        for rows, block in vectors.blocks():
            codes[rows] = quantiser.encode(block)
        return Fitted(
            codebook=make_codebook(codes, item_ids, vectors, quantiser, self.settings, context),
            quantised_levels=codes.shape[1],
            quantiser=quantiser,
            records=epoch_losses(outcome.state.records),
            reused=outcome.reused,
        )

    def restore(self, tensors: Mapping[str, npt.NDArray[Any]]) -> Quantiser:
        """See `Tokenizer.restore`."""
        mean, scale = tensors["mean"], tensors["scale"]
        module = self.build(len(mean))
        state = {name: torch.from_numpy(value) for name, value in tensors.items()}
        module.load_state_dict({n.removeprefix("module."): v for n, v in state.items() if n.startswith("module.")})
        return AutoencoderQuantiser(module, mean, scale)
