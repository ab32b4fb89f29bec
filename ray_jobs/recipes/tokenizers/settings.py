"""Settings of the tokenizer recipes; no engine is loaded here."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, Positive, Seed
from infra.errors import SettingError

Scheme = Literal["random", "sequential", "collaborative", "semantic", "hybrid", "constrained"]


@dataclass(frozen=True, kw_only=True)
class QuantiserSettings(Bounded):
    """Settings of every quantiser; each recipe adds its own.

    Args:
        collisions: treatment of items with equal tuples, see `ray_jobs.tokenizers.collisions.resolve`.
        collision_size: vocabulary size of the extra level; 0 derives it from the largest collision.
        seed: of all random numbers.
    """

    collisions: Literal["extra_level", "sinkhorn", "list"] = "extra_level"
    collision_size: CountOrZero = 0
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(QuantiserSettings):
    """Settings of quantisers that are trained by gradient descent.

    Args:
        epochs, batch_size, learning_rate, weight_decay: of AdamW; the batch is per worker.
        checkpoint_every: epochs between checkpoints.
    """

    epochs: Count = 400
    batch_size: Count = 1024
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 1e-4
    checkpoint_every: Count = 100


@dataclass(frozen=True, kw_only=True)
class RQVAESettings(AutoencoderSettings):
    """Settings of the recipe.

    Args:
        levels: codes per item, without the collision level.
        codebook_size: codes per level; at most a fifth of the catalogue, so that items share codes.
        latent_dim: width of the latent vector and of the codes.
        hidden: widths of the encoder's hidden layers, mirrored by the decoder.
        commitment: weight of the commitment term (beta).
        restart_every: epochs between restarts of unused codes, except in the last fifth of training; 0 for none.
    """

    section: ClassVar[str] = "rqvae"

    levels: Count = 3
    codebook_size: Count = 256
    latent_dim: Count = 32
    hidden: tuple[Count, ...] = (256, 128)
    commitment: NonNegative = 0.25
    restart_every: CountOrZero = 20


@dataclass(frozen=True, kw_only=True)
class FSQSettings(AutoencoderSettings):
    """Settings of the recipe.

    Args:
        form: ``product`` or ``residual``.
        levels: codes per item (chunks of the product), without the collision level.
        grid: values per dimension, 3 or more; their product is the vocabulary size of a level.
        decoder_layers, decoder_heads: of the Transformer of the product form.
        hidden: widths of the residual form's hidden layers, mirrored by the decoder.
    """

    section: ClassVar[str] = "fsq"

    form: Literal["product", "residual"] = "product"
    levels: Count = 4
    grid: tuple[Annotated[int, Field(ge=3)], ...] = (8, 8, 8, 6, 5)
    decoder_layers: Count = 2
    decoder_heads: Count = 8
    hidden: tuple[Count, ...] = (256, 128)
    epochs: Count = 100
    batch_size: Count = 256
    learning_rate: Positive = 1e-4
    weight_decay: NonNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.grid:
            raise SettingError("fsq.grid is empty; it needs one number or more")
        if math.prod(self.grid) > 2**24:
            raise SettingError(f"fsq.grid {list(self.grid)} has {math.prod(self.grid):,} cells; use fewer than 2^24")


@dataclass(frozen=True, kw_only=True)
class ResidualSettings(QuantiserSettings):
    """Settings of residual k-means.

    Args:
        levels: codes per item, without the collision level.
        codebook_size: codes per level.
        standardise: scale every dimension to mean 0 and variance 1 over the training items.
        pca: number of principal components of the training items to keep; 0 for no projection.
        iterations: of k-means in memory.
        sample_per_code: maximum number of training items per code for k-means; more are sampled.
        passes: over streamed training items per level.
    """

    levels: Count = 3
    codebook_size: Count = 256
    standardise: bool = False
    pca: CountOrZero = 0
    iterations: Count = 25
    sample_per_code: Count = 256
    passes: Count = 2


@dataclass(frozen=True, kw_only=True)
class RQKMeansSettings(ResidualSettings):
    """Settings of the recipe."""

    section: ClassVar[str] = "rqkmeans"


@dataclass(frozen=True, kw_only=True)
class BalancedKMeansSettings(ResidualSettings):
    """Settings of the recipe.

    Args:
        balanced_iterations: maximum number of rounds of balanced assignment and means, after plain k-means.
    """

    section: ClassVar[str] = "balanced_kmeans"

    balanced_iterations: Count = 10


@dataclass(frozen=True, kw_only=True)
class ItemIndexSettings(Bounded):
    """Settings of the recipe.

    Args:
        scheme: ``random``: digits of a random number. ``sequential``: digits of the item's number in order of first
            occurrence in the training sequences, user by user. ``collaborative``: path in a tree of clusters of the
            co-occurrence graph, then a running number in the leaf. ``semantic``: category path, then a running number.
            ``hybrid``: one of these paths, then a code unique to the item. ``constrained``: two levels of clusters of
            bounded size over co-occurrence vectors, then a running number.
        path: of ``hybrid``.
        base: number of different digits.
        clusters, leaf, depth: the tree of ``collaborative``: children per node, maximum number of items of a leaf,
            maximum depth.
        branches: codes per level of ``constrained``; a cluster of level l has at most branches ** (3 - l) items.
        width: of the co-occurrence vectors of ``constrained``.
        seed: of random numbers and clusterings.
    """

    section: ClassVar[str] = "itemindex"

    scheme: Scheme = "collaborative"
    path: Literal["collaborative", "semantic"] = "collaborative"
    base: Annotated[int, Field(ge=2)] = 10
    clusters: Annotated[int, Field(ge=2)] = 10
    leaf: Count = 200
    depth: Count = 4
    branches: Annotated[int, Field(ge=2)] = 32
    width: Count = 32
    seed: Seed = 0
