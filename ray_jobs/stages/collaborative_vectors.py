"""Train a small SASRec, the teacher, on training positions, and keep the vectors of its items.

The teacher has a name, the hash of all that decides its vectors: the items at training positions user by user, the
settings, and the revision of the code. A teacher that is in the table is not trained again, whatever the day.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, NonNegative, Positive, Seed, ShareBelowOne
from ray_jobs.recipes.sequential.settings import LossName, SASRecSettings, require_divisor

STAGE = "collaborative_vectors"


@dataclass(frozen=True, kw_only=True)
class CollaborativeVectorsSettings(Bounded):
    """Settings of the teacher, as those of the recipe sasrec.

    Args:
        width: of the vectors.
        layers: number of layers.
        heads: attention heads per layer.
        dropout: in every layer.
        max_history: number of most recent items that a history keeps.
        epochs: passes over the histories. There is no early stopping: no held-out item may decide anything.
        batch_size: histories per optimiser step and worker.
        learning_rate: the peak, reached after the warm-up.
        weight_decay: of the optimiser.
        loss: as ``sasrec.loss``.
        negatives: number of sampled negatives.
        seed: of initial weights, order of histories and dropout.
    """

    section: ClassVar[str] = STAGE

    width: Count = 64
    layers: Count = 2
    heads: Count = 2
    dropout: ShareBelowOne = 0.3
    max_history: Count = 50
    epochs: Count = 40
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 0.01
    loss: LossName = "ce"
    negatives: Count = 512
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_divisor(self, "heads", "width")

    def recipe(self) -> SASRecSettings:
        """The settings of the recipe."""
        return SASRecSettings(**asdict(self), evaluate_every=self.epochs)
