"""Settings of the recipes that read item ids; no engine is loaded here."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, Positive, PositiveShare, Share, ShareBelowOne
from infra.errors import SettingError
from ray_jobs.encoders.settings import PACKAGED, Encoder
from ray_jobs.recommenders.settings import RecipeSettings, TransformerSettings
from schemas.recipes import TextsOfUsers

CodebookSize = Annotated[int, Field(ge=2, le=65536)]
LossName = Literal["ce", "sampled_softmax", "bce", "gbce"]


@dataclass(frozen=True, kw_only=True)
class ItemSettings(TransformerSettings):
    """Settings of a transformer over items."""

    max_history: Count = 50
    epochs: Count = 60
    batch_size: Count = 128
    patience: Count = 8
    evaluate_every: Count = 2
    width: Count = 64
    layers: Count = 2
    heads: Count = 2
    dropout: Share = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_divisor(self, "heads", "width")


@dataclass(frozen=True, kw_only=True)
class SequentialSettings(ItemSettings):
    """Settings of the encoder and of the loss over the catalogue.

    Args:
        loss: ``ce`` softmax over the whole catalogue; ``sampled_softmax`` over the target and `negatives` others;
            ``bce`` one negative per position that is not among the user's items (Kang and McAuley, 2018); ``gbce``
            binary cross-entropy against `negatives` others, its positive part raised to the power beta that corrects
            the overconfidence of sampling (Petrov and Macdonald, 2023).
        negatives: number of sampled negatives.
        temperature: divides the scores.
        gbce_t: calibration of ``gbce`` from 0 (plain BCE) to 1 (probabilities as without sampling).
        weigh: what has the same weight in the loss, ``positions`` or ``batches``. A batch holds histories of similar
            length, so with ``batches`` a position of a short history has a larger weight than one of a long history.
    """

    loss: LossName = "ce"
    negatives: Count = 512
    temperature: Positive = 1.0
    gbce_t: Share = 0.75
    weigh: Literal["positions", "batches"] = "positions"


@dataclass(frozen=True, kw_only=True)
class SASRecSettings(SequentialSettings):
    """Settings of SASRec.

    Args:
        inner: width of the feed-forward part (d_ff); 0 takes `width`, as in the paper.
        positions: ``learned`` as in the paper, or ``rotary``.
    """

    section: ClassVar[str] = "sasrec"

    inner: CountOrZero = 0
    positions: Literal["learned", "rotary"] = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise SettingError(
                f"{self._named('positions')} is rotary, which needs heads of even width, but {self._named('width')} / "
                f"{self._named('heads')} is {self.width // self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class MCLRecSettings(SASRecSettings):
    """Settings of MCLRec.

    Args:
        views_weight: weight of the contrastive loss between random views; 0 leaves it out.
        augmented_weight: weight of the contrastive loss with learned views; 0 leaves it and the augmenters out.
        margin_weight: weight, in that loss, of the regulariser that keeps views from becoming one.
        contrast_temperature: divides the inner products in both losses.
        kept_share: share of a history that cropping keeps.
        masked_share: share of its positions that masking empties.
        shuffled_share: share of it that shuffling reorders.
        joint: train encoder and augmenters at once, in one update a step instead of three; the paper's ablation.
    """

    section: ClassVar[str] = "mclrec"

    views_weight: NonNegative = 0.03
    augmented_weight: NonNegative = 0.1
    margin_weight: NonNegative = 0.1
    contrast_temperature: Positive = 1.0
    kept_share: PositiveShare = 0.5
    masked_share: ShareBelowOne = 0.5
    shuffled_share: Share = 0.8
    joint: bool = False


@dataclass(frozen=True, kw_only=True)
class SRACLSettings(SASRecSettings):
    """Settings of SRACL.

    Args:
        users_weight: weight of the contrastive loss between users and their neighbours; 0 leaves it out.
        items_weight: weight of the contrastive loss between histories with items exchanged; 0 leaves it out.
        contrast_temperature: divides the inner products in both losses.
        users_by: texts by which users are neighbours: ``summaries`` of their reviews, ``preferences``, ``both`` as one
            text, or the ``titles`` of their items, for which no language model is asked.
        encoder: text encoder of these texts and of the items' texts, see `ray_jobs.encoders.text.load_text_encoder`.
        neighbours: number of neighbours of a user, and of an item.
        exclude_same_user: no user is a neighbour of their own, with what was said at another time.
        neighbour_dropout: dropout of the weights of a user's neighbours.
        exchanged_share: share of a history's items that a view exchanges.
    """

    section: ClassVar[str] = "sracl"

    users_weight: NonNegative = 0.1
    items_weight: NonNegative = 0.1
    contrast_temperature: Positive = 1.0
    users_by: TextsOfUsers = "both"
    encoder: Encoder = PACKAGED
    neighbours: Count = 10
    exclude_same_user: bool = True
    neighbour_dropout: Share = 0.5
    exchanged_share: Share = 0.2


@dataclass(frozen=True, kw_only=True)
class EnsRecSettings(SASRecSettings):
    """Settings of EnsRec; what has no name of its own for the member that reads texts is the same for both.

    Args:
        encoder: text encoder of the items' texts, see `ray_jobs.encoders.text.load_text_encoder`.
        text_width: width of that member's states.
        text_hidden: hidden width of the network that maps text vectors to `text_width`.
        text_dropout: dropout of that member.
        text_epochs: maximum number of its phase; `epochs` is that of the other member.
        text_learning_rate: the peak of its phase.
        text_weight_decay: of the optimiser in its phase.
    """

    section: ClassVar[str] = "ensrec"

    encoder: Encoder = PACKAGED
    text_width: Count = 128
    text_hidden: Count = 256
    text_dropout: Share = 0.2
    text_epochs: Count = 60
    text_learning_rate: Positive = 2e-3
    text_weight_decay: NonNegative = 0.01

    def of_texts(self) -> "EnsRecSettings":
        """Settings of the member that reads texts."""
        return replace(self, width=self.text_width, dropout=self.text_dropout)


@dataclass(frozen=True, kw_only=True)
class BERT4RecSettings(SequentialSettings):
    """Settings of BERT4Rec.

    Args:
        inner: width of the feed-forward part (d_ff); 0 takes four times `width`.
        mask_share: share of a window's positions to mask.
        last_item_share: share of the windows in which only the last position is masked.
        window_step: distance between the windows of a long history, as a share of `max_history`.
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
        time_bias: attention depends on the times of the interactions, which the data set must have.
        use_request_time: measure time differences from the time of the next item, see `HSTU`.
        attention: ``pointwise`` as published, or ``softmax``.
    """

    section: ClassVar[str] = "hstu"

    weight_decay: NonNegative = 0.0
    heads: Count = 1
    dropout: Share = 0.2
    loss: LossName = "sampled_softmax"
    temperature: Positive = 0.05
    time_bias: bool = True
    use_request_time: bool = True
    attention: Literal["pointwise", "softmax"] = "pointwise"


@dataclass(frozen=True, kw_only=True)
class ReaRecSettings(BERT4RecSettings, HSTUSettings, SASRecSettings):
    """Settings of ReaRec: those of its backbones, of which each reads its own, and those of the reasoning.

    Args:
        backbone: the recipe whose encoder reasons: ``sasrec``, ``hstu`` or ``bert4rec``.
        reasoning: ``erl``, the mean of all steps, which are to differ; or ``prl``, the last step, approached by
            sharper and sharper ones.
        steps: number of reasoning steps (K); 0 trains and ranks as the backbone does.
        divergence_weight: weight in the loss of ``erl`` of how far steps rank the catalogue differently.
        early_weight: weight in the loss of ``prl`` of the steps before the last.
        sharpening: factor by which the temperature of ``prl`` falls from step to step, to `temperature` at the last.
        contrast_weight: weight in the loss of ``prl`` of recognising a user's steps despite noise.
        contrast_after: epochs before that begins.
        noise: standard deviation of that noise.
    """

    section: ClassVar[str] = "rearec"

    weight_decay: NonNegative = 0.01
    heads: Count = 2
    dropout: Share = 0.3
    loss: LossName = "ce"
    temperature: Positive = 0.07
    backbone: Literal["sasrec", "hstu", "bert4rec"] = "sasrec"
    reasoning: Literal["erl", "prl"] = "prl"
    steps: CountOrZero = 2
    divergence_weight: NonNegative = 0.05
    early_weight: NonNegative = 1.0
    sharpening: Annotated[float, Field(ge=1)] = 5.0
    contrast_weight: NonNegative = 1.0
    contrast_after: CountOrZero = 2
    noise: NonNegative = 0.01


@dataclass(frozen=True, kw_only=True)
class IDNPSettings(SequentialSettings):
    """Settings of IDNP.

    Args:
        layers: convolutions over a window, of which each reaches twice as far as the one before.
        window: number of items of a window.
        timed: ask at a time, with windows at theirs, which the data set must have; false numbers the windows.
        latent: draw a variable for the whole of a user's interest.
        divergence: between that variable given all windows and given some, ``wasserstein`` or ``kl``.
        divergence_weight: of it in the loss.
    """

    section: ClassVar[str] = "idnp"

    max_history: Count = 20
    layers: Count = 3
    dropout: Share = 0.2
    window: Count = 4
    timed: bool = True
    latent: bool = True
    divergence: Literal["wasserstein", "kl"] = "wasserstein"
    divergence_weight: NonNegative = 0.1


@dataclass(frozen=True, kw_only=True)
class RPGSettings(ItemSettings):
    """Settings of RPG.

    Args:
        encoder: text encoder of the items' texts, see `ray_jobs.encoders.text.load_text_encoder`.
        digits: number of codes of an item.
        codebook_size: codes per digit, a power of two.
        components: principal components of the text vectors that are quantised; 0 takes all.
        whiten: scale the components to variance 1, as published; otherwise the largest ones say most of what codes
            mean.
        inner: width of the feed-forward part (d_ff); 0 takes four times `width`.
        temperature: divides the cosines.
    """

    section: ClassVar[str] = "rpg"

    encoder: Encoder = PACKAGED
    digits: Count = 32
    codebook_size: CodebookSize = 256
    components: CountOrZero = 128
    whiten: bool = True
    inner: CountOrZero = 0
    temperature: Positive = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook_size & (self.codebook_size - 1):
            raise SettingError(f"{self._named('codebook_size')} is {self.codebook_size}, but must be a power of two")
        if self.components:
            require_divisor(self, "digits", "components")

    def components_of(self, dim: int) -> int:
        """Components of text vectors of width `dim`.

        Raises:
            SettingError: the vectors have fewer, or their width is no multiple of `digits`.
        """
        if self.components > dim:
            raise SettingError(
                f"{self._named('components')} is {self.components}, but text vectors of {self.encoder} have {dim}"
            )
        if dim % self.digits and not self.components:
            raise SettingError(
                f"{self._named('digits')} is {self.digits}, but must divide the width of text vectors of "
                f"{self.encoder}, {dim}, or {self._named('components')}, where that is set"
            )
        return self.components or dim


def require_divisor(settings: Bounded, part: str, whole: str) -> None:
    """Raises SettingError if the setting `part` does not divide the setting `whole`."""
    if getattr(settings, whole) % getattr(settings, part):
        raise SettingError(
            f"{settings._named(part)} is {getattr(settings, part)}, but must divide "
            f"{settings._named(whole)}, {getattr(settings, whole)}"
        )


@dataclass(frozen=True, kw_only=True)
class PopularitySettings(RecipeSettings):
    """Settings of popularity."""

    section: ClassVar[str] = "popularity"


@dataclass(frozen=True, kw_only=True)
class ICSRecSettings(SASRecSettings):
    """Settings of ICSRec.

    Args:
        coarse_weight: weight of the loss between sub-sequences with the same next item; 0 leaves it out.
        fine_weight: weight of the loss between sub-sequences and the centres of their clusters; 0 leaves it out.
        contrast_temperature: divides the inner products in both losses.
        intents: number of clusters.
        sample_per_intent: maximum number of sub-sequences per cluster for k-means; more are sampled.
        mask_false_negatives: sub-sequences with the same next item, or in the same cluster, are not pushed apart.
    """

    section: ClassVar[str] = "icsrec"

    coarse_weight: NonNegative = 0.1
    fine_weight: NonNegative = 0.1
    contrast_temperature: Positive = 1.0
    intents: Count = 256
    sample_per_intent: Count = 256
    mask_false_negatives: bool = True


@dataclass(frozen=True, kw_only=True)
class SETRecSettings(ItemSettings):
    """Settings of SETRec.

    Args:
        encoder: text encoder of the items' texts, see `ray_jobs.encoders.text.load_text_encoder`.
        semantic_slots: number of tokens of an item's text, beside the one of its collaborative vector.
        hidden: widths of the hidden layers that map a text vector to its tokens, mirrored by the decoder.
        reconstruction_weight: weight of the loss of the text vectors decoded from the tokens (alpha); 0 leaves it out.
        semantic_shares: weights of the semantic slots in a score (b), of which the best one on validation users is
            kept; the collaborative slot has the rest. Without validation the middle one.
        inner: width of the feed-forward part (d_ff); 0 takes four times `width`.
    """

    section: ClassVar[str] = "setrec"

    max_history: Count = 20
    encoder: Encoder = PACKAGED
    semantic_slots: Count = 4
    hidden: tuple[Count, ...] = (512, 256, 128)
    reconstruction_weight: NonNegative = 0.5
    semantic_shares: Annotated[tuple[Share, ...], Field(min_length=1)] = tuple(tenth / 10 for tenth in range(1, 11))
    inner: CountOrZero = 0
