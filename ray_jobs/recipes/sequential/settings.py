"""Settings of the recipes that read item ids; no engine is loaded here."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from infra.bounds import Count, CountOrZero, Positive, PositiveShare, Share
from ray_jobs.recommenders.settings import RecipeSettings

LossName = Literal["ce", "sampled_softmax", "bce", "gbce"]


@dataclass(frozen=True, kw_only=True)
class NextItemSettings(RecipeSettings):
    """Settings of the loss over the catalogue.

    Args:
        loss: ``ce`` softmax over the whole catalogue; ``sampled_softmax`` over the target and `negatives` others;
            ``bce`` one negative per position that is not among the user's items (Kang and McAuley, 2018); ``gbce``
            binary cross-entropy against `negatives` others, its positive part raised to the power beta that undoes the
            overconfidence of sampling (Petrov and Macdonald, 2023).
        negatives: how many of them.
        temperature: scores are divided by it.
        gbce_t: calibration of ``gbce`` from 0 (plain BCE) to 1 (probabilities as without sampling).
    """

    loss: LossName = "ce"
    negatives: Count = 512
    temperature: Positive = 1.0
    gbce_t: Share = 0.75


@dataclass(frozen=True, kw_only=True)
class SequentialSettings(NextItemSettings):
    """Settings of the encoder; each recipe's own add to them.

    Args:
        width: of the states.
        layers: of the encoder.
        heads: of its attention.
        dropout: in every layer.
    """

    max_history: Count = 50
    epochs: Count = 60
    batch_size: Count = 128
    patience: Count = 8
    evaluate_every: Count = 2
    width: Count = 64
    layers: Count = 2
    heads: Count = 2
    dropout: Share = 0.3


@dataclass(frozen=True, kw_only=True)
class SASRecSettings(SequentialSettings):
    """Settings of SASRec.

    Args:
        inner: width of the feed-forward part; 0 takes `width`, as in the paper.
        positions: ``learned`` as in the paper, or ``rotary``.
    """

    section: ClassVar[str] = "sasrec"

    inner: CountOrZero = 0
    positions: Literal["learned", "rotary"] = "learned"


@dataclass(frozen=True, kw_only=True)
class BERT4RecSettings(SequentialSettings):
    """Settings of BERT4Rec.

    Args:
        inner: width of the feed-forward part; 0 takes four times `width`.
        mask_share: of a window's positions.
        last_item_share: of the windows, those of which only the last position is masked.
        window_step: windows of a long history step back by this share of `max_history`.
    """

    section: ClassVar[str] = "bert4rec"

    inner: CountOrZero = 0
    mask_share: Share = 0.6
    last_item_share: Share = 0.1
    window_step: PositiveShare = 0.1


@dataclass(frozen=True, kw_only=True)
class HSTUSettings(SequentialSettings):
    """Settings of HSTU.

    Args:
        time_bias: attention depends on the times of the interactions; a data set without them is refused.
        use_request_time: time differences count from the next item's time, see the module.
        attention: ``pointwise`` as published, or ``softmax``.
    """

    section: ClassVar[str] = "hstu"

    weight_decay: float = 0.0
    heads: Count = 1
    dropout: Share = 0.2
    loss: LossName = "sampled_softmax"
    negatives: Count = 512
    temperature: Positive = 0.05
    time_bias: bool = True
    use_request_time: bool = True
    attention: Literal["pointwise", "softmax"] = "pointwise"


@dataclass(frozen=True, kw_only=True)
class PopularitySettings(RecipeSettings):
    """Nothing to set beyond what every recipe has."""

    section: ClassVar[str] = "popularity"
