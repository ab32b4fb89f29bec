"""Settings of the tokenizer recipes; no engine is loaded here."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, Positive
from infra.errors import SettingError

Scheme = Literal["random", "sequential", "collaborative", "semantic", "hybrid", "constrained"]


@dataclass(frozen=True, kw_only=True)
class QuantiserSettings(Bounded):
    """Settings that every quantiser has; each recipe's own dataclass adds to them.

    Args:
        collisions: what becomes of items with equal tuples, see `ray_jobs.tokenizers.collisions.resolve`.
        collision_size: vocabulary of the extra level; 0 chooses it from the largest collision.
        seed: of everything drawn at random.
    """

    collisions: Literal["extra_level", "sinkhorn", "list"] = "extra_level"
    collision_size: CountOrZero = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(QuantiserSettings):
    """Settings of a quantiser that is trained.

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
        levels: codes per item, the collision level left out.
        codebook_size: codes per level; a fifth of the catalogue or less, else items have few neighbours in a code.
        latent_dim: width of the latent vector and of the codes.
        hidden: widths of the encoder's hidden layers, mirrored by the decoder.
        commitment: weight of the commitment term (beta).
        restart_every: epochs between restarts of unused codes; 0 never restarts. None in the last fifth of training.
    """

    section: ClassVar[str] = "rqvae"

    levels: Count = 3
    codebook_size: Count = 256
    latent_dim: Count = 32
    hidden: tuple[int, ...] = (256, 128)
    commitment: NonNegative = 0.25
    restart_every: CountOrZero = 20


@dataclass(frozen=True, kw_only=True)
class FSQSettings(AutoencoderSettings):
    """Settings of the recipe.

    Args:
        form: ``product`` or ``residual``.
        levels: codes per item (chunks of the product), the collision level left out.
        grid: cells per rounded number, 3 or more; their product is the vocabulary of a level.
        decoder_layers, decoder_heads: of the Transformer that reads a product's chunks.
        hidden: widths of the hidden layers around a residual form's latent vector, mirrored by the decoder.
    """

    section: ClassVar[str] = "fsq"

    form: Literal["product", "residual"] = "product"
    levels: Count = 4
    grid: tuple[Annotated[int, Field(ge=3)], ...] = (8, 8, 8, 6, 5)
    decoder_layers: Count = 2
    decoder_heads: Count = 8
    hidden: tuple[int, ...] = (256, 128)
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
    """Settings of a residual k-means.

    Args:
        levels: codes per item, the collision level left out.
        codebook_size: codes per level.
        standardise: bring every dimension to mean 0 and variance 1 first, as training items have them.
        pca: keep this many principal components of the training items; 0 keeps the vectors as they are.
        iterations: of k-means in memory.
        sample_per_code: training items per code that k-means reads; with more items, a sample.
        passes: over the training items per level, when they are streamed.
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
    """Settings of the recipe: those of every residual k-means."""

    section: ClassVar[str] = "rqkmeans"


@dataclass(frozen=True, kw_only=True)
class BalancedKMeansSettings(ResidualSettings):
    """Settings of the recipe.

    Args:
        balanced_iterations: rounds of balanced assignment and means, after a start from plain k-means; fewer when
            nothing moves any more.
    """

    section: ClassVar[str] = "balanced_kmeans"

    balanced_iterations: Count = 10


@dataclass(frozen=True, kw_only=True)
class ItemIndexSettings(Bounded):
    """Settings of the recipe.

    Args:
        scheme: what codes say. ``random``: digits of a random number. ``sequential``: digits of the place in which
            training sequences, user by user, first name the item. ``collaborative``: path in a tree of clusters of the
            co-occurrence graph, then a running number in the leaf. ``semantic``: category path, then a running number.
            ``hybrid``: one of these paths, then a code of the item's own. ``constrained``: two levels of clusters of
            bounded size over co-occurrence vectors, then a running number.
        path: of ``hybrid``.
        base: digits there are.
        clusters, leaf, depth: the tree of ``collaborative``: children of a node, most items of a node that is not cut
            again, longest path.
        branches: codes per level of ``constrained``; at level l a cluster has at most branches ** (3 - l) items.
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
    seed: CountOrZero = 0
