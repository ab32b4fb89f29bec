"""Settings of the recipes that read item ids; no engine is loaded here."""

from dataclasses import dataclass
from typing import Literal

from infra.errors import SettingError
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
    negatives: int = 512
    temperature: float = 1.0
    gbce_t: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives < 1:
            raise SettingError(f"negatives is {self.negatives}: at least 1 is needed")
        if self.temperature <= 0:
            raise SettingError(f"temperature is {self.temperature}: above 0 is needed")
        if not 0 <= self.gbce_t <= 1:
            raise SettingError(f"gbce_t is {self.gbce_t}: from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class SequentialSettings(NextItemSettings):
    """Settings of the encoder; each recipe's own add to them."""

    max_history: int = 50
    epochs: int = 60
    batch_size: int = 128
    patience: int = 8
    evaluate_every: int = 2
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.3


@dataclass(frozen=True, kw_only=True)
class SASRecSettings(SequentialSettings):
    """Settings of SASRec.

    Args:
        inner: width of the feed-forward part; 0 takes `width`, as in the paper.
        positions: ``learned`` as in the paper, or ``rotary``.
    """

    inner: int = 0
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

    inner: int = 0
    mask_share: float = 0.6
    last_item_share: float = 0.1
    window_step: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mask_share", "last_item_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"bert4rec.{name} is {getattr(self, name)}: a share from 0 to 1")
        if not 0 < self.window_step <= 1:
            raise SettingError(f"bert4rec.window_step is {self.window_step}: a share above 0")


@dataclass(frozen=True, kw_only=True)
class HSTUSettings(SequentialSettings):
    """Settings of HSTU.

    Args:
        time_bias: attention depends on the times of the interactions; a data set without them is refused.
        use_request_time: time differences count from the next item's time, see the module.
        attention: ``pointwise`` as published, or ``softmax``.
    """

    weight_decay: float = 0.0
    heads: int = 1
    dropout: float = 0.2
    loss: LossName = "sampled_softmax"
    negatives: int = 512
    temperature: float = 0.05
    time_bias: bool = True
    use_request_time: bool = True
    attention: Literal["pointwise", "softmax"] = "pointwise"


@dataclass(frozen=True, kw_only=True)
class PopularitySettings(RecipeSettings):
    """Nothing to set beyond what every recipe has."""
