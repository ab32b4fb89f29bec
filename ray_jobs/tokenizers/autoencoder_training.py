"""Training of an autoencoder on item vectors: sources of batches, and the run on Ray Train.

Vectors in memory are sent to every worker. Streamed vectors come through Ray Data, a shard per worker and epoch,
shuffled within a buffer; operations on all vectors (k-means initialisation, restarts of codes) use a uniform sample. A
streamed fit leaves one CPU of each worker to Ray Data.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray.train
import torch
from torch import Tensor

from ray_jobs.cluster import connect
from ray_jobs.data.vector_columns import matrix
from ray_jobs.recipes.tokenizers.settings import AutoencoderSettings
from ray_jobs.tokenizers.autoencoder import Autoencoder, AutoencoderTokenizer, VectorSource
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import DatasetVectors, Floats, Vectors, sampled_rows, take
from ray_jobs.training import ray_train
from ray_jobs.training.trainable import Notify, silent

_SAMPLE_ROWS = 50_000
_SHUFFLE_BATCHES = 16
_TRAIN = "train"


@dataclass(frozen=True, eq=False)
class InMemory:
    """All training vectors float[N, D]; workers take turns in an epoch's order, repeating rows to have equal shares."""

    sample: Tensor

    def __len__(self) -> int:
        return len(self.sample)

    def share(self, world: int) -> int:
        """See `VectorSource.share`."""
        return -(-len(self) // world)

    def batches(
        self, batch_size: int, seed: int | None, rank: int = 0, world: int = 1, skip: int = 0
    ) -> Iterator[Tensor]:
        """See `ray_jobs.training.trainable.BatchSource`; the seed is required."""
        assert seed is not None
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        mine = order.repeat(1 + world)[rank : self.share(world) * world : world].to(self.sample.device)
        return (self.sample[rows] for rows in mine.split(batch_size)[skip:])


@dataclass(frozen=True, eq=False)
class Streamed:
    """This worker's shard of a Ray Data set with a column ``vector``, standardised while reading.

    Args:
        rows: number of rows of the whole set.
    """

    shard: Any
    sample: Tensor
    mean: Floats
    scale: Floats
    rows: int

    def __len__(self) -> int:
        return self.rows

    def share(self, world: int) -> int:
        """See `VectorSource.share`; Ray Data drops the remainder of an even division."""
        return self.rows // world

    def batches(
        self,
        batch_size: int,
        seed: int | None,
        rank: int = 0,  # noqa: ARG002  (the shard is the worker's own)
        world: int = 1,  # noqa: ARG002
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """See `ray_jobs.training.trainable.BatchSource`; the seed is needed."""
        assert seed is not None
        read = self.shard.iter_batches(
            batch_size=batch_size,
            batch_format="pyarrow",
            local_shuffle_buffer_size=batch_size * _SHUFFLE_BATCHES,
            local_shuffle_seed=seed % 2**32,
        )
        for batch in itertools.islice(read, skip, None):
            yield torch.from_numpy((matrix(batch["vector"]) - self.mean) / self.scale).to(self.sample.device)


@dataclass(frozen=True, eq=False)
class VectorPlan:
    """What a worker needs; see `ray_jobs.training.ray_train.TrainingPlan`.

    Args:
        sample: standardised training vectors float32[n, D]: all of them, or a sample that fits in memory.
        streamed: number of vectors, mean and scale, if they are streamed.
    """

    recipe: AutoencoderTokenizer
    sample: Floats
    streamed: tuple[int, Floats, Floats] | None = None

    def __len__(self) -> int:
        """Number of training vectors."""
        return len(self.sample) if self.streamed is None else self.streamed[0]

    def build(self) -> Autoencoder:
        """The untrained module; the seed fixes its initial weights."""
        torch.manual_seed(self.recipe.settings.seed)
        return self.recipe.build(self.sample.shape[1])

    def sources(self, trainable: Autoencoder, notify: Notify = silent) -> tuple[VectorSource, None]:  # noqa: ARG002
        """Training batches; there is no evaluation."""
        sample = torch.from_numpy(self.sample.copy()).to(trainable.device)
        if self.streamed is None:
            return InMemory(sample), None
        rows, mean, scale = self.streamed
        return Streamed(ray.train.get_dataset_shard(_TRAIN), sample, mean, scale, rows), None


def train(
    recipe: AutoencoderTokenizer, vectors: Vectors, moments: tuple[Floats, Floats], context: FitContext
) -> ray_train.Outcome:
    """Train the module of `recipe` on the training items of `vectors` under ``context.run_name``.

    The same name resumes from its last checkpoint; a finished run is not repeated.

    Args:
        moments: mean and scale float32[D] that standardise the vectors.

    Raises:
        SettingError: the cluster is too small, or the run of that name has other settings or vectors.
    """
    settings = recipe.settings
    size = _SAMPLE_ROWS if vectors.streamed else vectors.shape[0]
    mean, scale = moments
    sample = (take(vectors, sampled_rows(context.training, size, settings.seed)) - mean) / scale
    plan, datasets = VectorPlan(recipe, sample), {}
    if isinstance(vectors, DatasetVectors):
        plan = dataclasses.replace(plan, streamed=(int(context.training.sum()), mean, scale))
        datasets = {_TRAIN: vectors.dataset(context.training)}
    after = context.after_report
    connect()
    return ray_train.train(
        plan,
        context.ray,
        run_name=context.run_name,
        home=context.home,
        stage=context.stage,
        fingerprint=_fingerprint(settings, vectors, context),
        datasets=datasets,
        hook=None if after is None else lambda state: after(state.epoch),
    )


def _fingerprint(settings: AutoencoderSettings, vectors: Vectors, context: FitContext) -> str:
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    digest.update(str((int(context.training.sum()), vectors.shape[1])).encode())
    for _, block in vectors.blocks(context.training):
        digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()
