"""Settings of the recommenders whose item vectors are coded; no engine is loaded here."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from infra.bounds import Bounded, Count, NonNegative, Positive, Seed, ShareBelowOne
from ray_jobs.recipes.sequential.settings import LossName, SASRecSettings

ALIGNMENT = "--alignment"
"""Suffix of the names of the alignment's Ray Train runs, beside those of their tokenizers."""


@dataclass(frozen=True, kw_only=True)
class TeachingSettings(Bounded):
    """Settings of a small SASRec over training positions, as those of the recipe sasrec.

    Args:
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

    def recipe(self, width: int) -> SASRecSettings:
        """The settings of the recipe, for vectors of `width`."""
        known = {name: value for name, value in asdict(self).items() if name in TeachingSettings.__annotations__}
        return SASRecSettings(**known | {"width": width, "evaluate_every": self.epochs})


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings(TeachingSettings):
    """Settings of the alignment of texts and collaborative vectors, which goes on from the teacher's vectors.

    Args:
        contrast_weight: weight of the contrastive loss between both vectors of an item; 0 leaves the text untrained.
        contrast_temperature: divides the cosines in it.
    """

    section: ClassVar[str] = "alignment"

    contrast_weight: NonNegative = 1.0
    contrast_temperature: Positive = 0.07
