"""Settings of the recipes that write semantic ids; no engine is loaded here."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Count, CountOrZero, NonNegative, Positive, Share
from infra.errors import SettingError
from ray_jobs.encoders.settings import PACKAGED, Encoder
from ray_jobs.recommenders.settings import TransformerSettings

Fused = Literal["fine_steering", "coarse_steering", "positive", "negative"]


@dataclass(frozen=True, kw_only=True)
class GenerativeSettings(TransformerSettings):
    """Settings of the decoder of codes.

    Args:
        head_width: width of an attention head; its product with `heads` need not be `width`.
        inner: width of the feed-forward part (d_ff).
        beams: beam width; at least the number of items wanted.
        max_per_first_code: maximum number of recommended items with the same first code; 0 for no maximum.
        label_smoothing: in the training loss, over the codes of a level.
        negative_weight: weight of examples whose preference rejects the target; other examples have 1.
        dense_weight: weight of the loss over item vectors relative to that over codes, for recipes with a dense head.
    """

    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    head_width: Count = 32
    inner: Count = 256
    dropout: Share = 0.2
    beams: Annotated[int, Field(ge=10)] = 20
    max_per_first_code: CountOrZero = 0
    label_smoothing: Share = 0.1
    negative_weight: NonNegative = 1.0
    dense_weight: NonNegative = 2.0


@dataclass(frozen=True, kw_only=True)
class TigerSettings(GenerativeSettings):
    """Settings of TIGER.

    Args:
        encoder_layers: layers of the encoder.
        compile_search: answer single requests with compiled code, see `CompiledSearch`; needs a C++ compiler.
    """

    section: ClassVar[str] = "tiger"

    encoder_layers: Count = 2
    compile_search: bool = False


@dataclass(frozen=True, kw_only=True)
class DiscRecSettings(TigerSettings):
    """Settings of DiscRec.

    Args:
        reads: what a token's collaborative vector sees: the tokens of its ``item``, those of the whole ``history``, or
            the ``token`` alone, as controls.
    """

    section: ClassVar[str] = "discrec"

    reads: Literal["item", "history", "token"] = "item"


@dataclass(frozen=True, kw_only=True)
class ProRecSettings(TigerSettings):
    """Settings of ProRec.

    Args:
        distill_weight: weight of the loss against the vectors that the codes stand for; 0 leaves it out.
        distill_temperature: divides the cosines in it.
    """

    section: ClassVar[str] = "prorec"

    distill_weight: NonNegative = 1.0
    distill_temperature: Positive = 0.07


@dataclass(frozen=True, kw_only=True)
class TigerDecoderSettings(GenerativeSettings):
    """Settings of the decoder-only TIGER.

    Args:
        weigh: what has the same weight in the loss, ``positions`` or ``batches``. A batch holds histories of similar
            length, so with ``batches`` an item of a short history has a larger weight than one of a long history.
        dense: learn a vector per item besides its codes, read the history's vectors and rank by them, see `DenseHead`.
        encoder: text encoder of these vectors, see `ray_jobs.encoders.text.load_text_encoder`.
        text_hidden: hidden width of the network that maps whitened text vectors; 0 maps centred ones linearly.
    """

    section: ClassVar[str] = "tiger_decoder"

    max_history: Count = 50
    epochs: Count = 60
    batch_size: Count = 128
    patience: Count = 8
    evaluate_every: Count = 2
    weigh: Literal["positions", "batches"] = "positions"
    dense: bool = False
    encoder: Encoder = PACKAGED
    text_hidden: CountOrZero = 256


@dataclass(frozen=True, kw_only=True)
class RecGPTSettings(TransformerSettings):
    """Settings of RecGPT.

    Args:
        inner: width of the feed-forward part.
        attends: what a code sees besides earlier items: all codes of its own ``item``, or as a control only those
            before its ``token`` and itself.
        pieces: read the piece of the text vector that a code stands for, beside the code.
        encoder: text encoder of these vectors; the one that the codes were made with.
    """

    section: ClassVar[str] = "recgpt"

    max_history: Count = 20
    epochs: Count = 60
    batch_size: Count = 128
    patience: Count = 8
    evaluate_every: Count = 2
    width: Count = 128
    layers: Count = 3
    heads: Count = 4
    dropout: Share = 0.2
    inner: Count = 512
    attends: Literal["item", "token"] = "item"
    pieces: bool = True
    encoder: Encoder = PACKAGED


@dataclass(frozen=True, kw_only=True)
class ConditionedSettings(GenerativeSettings):
    """Settings of recipes that read preferences.

    Args:
        encoder: name for `ray_jobs.encoders.text.load_text_encoder`.
        preference_dropout: share of training examples without preference.
        matched_share: share of the other examples that get the single best-matching preference (a negated dislike if
            only dislikes are known); the rest get all lines (the paper's accumulated preferences).
        swap_share: share of the examples with a preference that take preference and target from another example but
            keep their history, so that the text outweighs the history. The other target shares alternately the most
            codes with their own and none.
        alone_share: share of the examples with a matched preference that are repeated without history, to learn from
            the text alone.
        twin_share: share of the examples with a matched preference that are repeated with the preference negated and
            the target rejected, to learn what "avoids" means.
        fuse: additional training samples from the table preference_benchmark: ``fine_steering``, ``coarse_steering``,
            ``positive`` and ``negative`` (sentiment following; negative ones teach what not to recommend).
        fuse_repeats: repetitions of each of those samples per epoch; there are only few of them.
    """

    encoder: Encoder = PACKAGED
    preference_dropout: Share = 0.3
    matched_share: Share = 0.5
    swap_share: Share = 0.0
    alone_share: Share = 0.0
    twin_share: Share = 0.0
    fuse: tuple[Fused, ...] = ()
    fuse_repeats: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop:
            raise SettingError(
                f"{self._named('crop')} is {self.crop}, but must be 0: preferences belong to the target of a history, "
                "which a crop changes"
            )


@dataclass(frozen=True, kw_only=True)
class MenderTokSettings(ConditionedSettings):
    """Settings of MenderTok.

    Args:
        encoder_training: ``frozen``, or ``lora`` (rank 16, alpha 1, on the four attention projections), whose states
            change and are not cached.
        reading: ``joint`` encodes one text per history, as in the paper; ``parts`` preference and titles separately.
        dense: learn a vector per item besides its codes, read the history's vectors and rank by them, see `DenseHead`;
            false reads texts only and ranks by codes, as in the paper.
        text_hidden: hidden width of the network that maps whitened text vectors; 0 maps centred ones linearly.
        text_length: maximum number of tokens per example.
        recency: add a learned embedding of how many titles ago a token occurred.
        state_dropout: dropout on the projected encoder states.
        cache_mb: memory for cached encoder states.
    """

    section: ClassVar[str] = "mendertok"

    epochs: Count = 15
    patience: Count = 4
    encoder_training: Literal["frozen", "lora"] = "frozen"
    reading: Literal["joint", "parts"] = "joint"
    dense: bool = True
    text_hidden: CountOrZero = 256
    text_length: Annotated[int, Field(ge=16)] = 128
    recency: bool = True
    state_dropout: Share = 0.2
    cache_mb: CountOrZero = 2048


@dataclass(frozen=True, kw_only=True)
class MenderEmbSettings(ConditionedSettings):
    """Settings of MenderEmb.

    Args:
        faithful: no positions, and attention to padding, as released; for comparison.
    """

    section: ClassVar[str] = "menderemb"

    faithful: bool = False
