"""Settings of the recipes that write semantic ids; no engine is loaded here."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Count, CountOrZero, NonNegative, Share
from ray_jobs.encoders.settings import PACKAGED
from ray_jobs.recommenders.settings import RecipeSettings

Fused = Literal["fine_steering", "coarse_steering", "positive", "negative"]


@dataclass(frozen=True, kw_only=True)
class GenerativeSettings(RecipeSettings):
    """Settings of the code decoder.

    Args:
        width: of the decoder's states.
        layers: of the decoder.
        heads, head_width: of its attention; their product need not be `width`.
        inner: width of the feed-forward part.
        dropout: in every layer.
        beams: kept at every level when decoding; at least as many as items asked for.
        max_per_first_code: cap on recommended items that share their first code; 0 for no cap.
        label_smoothing: share of probability spread over a level's codes in the training loss.
        negative_weight: of examples whose preference rejects the target, against those of the others.
        dense_weight: of the loss over item vectors beside that over codes, for recipes with a dense head.
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
        encoder_layers: layers that read the history.
        compile_search: single requests are answered by compiled code, see `CompiledSearch`; it needs a C++ compiler.
    """

    section: ClassVar[str] = "tiger"

    encoder_layers: Count = 2
    compile_search: bool = False


@dataclass(frozen=True, kw_only=True)
class ConditionedSettings(GenerativeSettings):
    """Settings of recipes that read preferences.

    Args:
        encoder: name for `ray_jobs.encoders.text.load_text_encoder`.
        preference_dropout: share of training examples that are given no preference.
        matched_share: of the others, share that is given the single best-fitting wish (where only dislikes are known,
            one turned round); the rest get all lines (the paper's accumulated preferences).
        swap_share: of the examples with a preference, share that takes over preference and target of another example
            and keeps its history, so that the text decides against the history. In turns one whose target shares the
            most codes with its own and one that shares none.
        alone_share: of the examples that are given a fitting wish, share that also stands without its history, so that
            the text alone can tell.
        twin_share: of those with a fitting wish, share that also stands with the wish turned round and its target
            rejected, so that the model learns what "avoids" means.
        fuse: samples of the table preference_benchmark to train on as well: ``fine_steering``, ``coarse_steering``,
            ``positive`` and ``negative`` (sentiment following; a negative one teaches what not to recommend).
        fuse_repeats: how often each of those samples stands in an epoch; there are only few of them.
    """

    encoder: str = PACKAGED
    preference_dropout: Share = 0.3
    matched_share: Share = 0.5
    swap_share: Share = 0.0
    alone_share: Share = 0.0
    twin_share: Share = 0.0
    fuse: tuple[Fused, ...] = ()
    fuse_repeats: Count = 1


@dataclass(frozen=True, kw_only=True)
class MenderTokSettings(ConditionedSettings):
    """Settings of MenderTok.

    Args:
        encoder_training: ``frozen``, or ``lora`` (rank 16, alpha 1, on the attention's four maps), whose states
            change and so are not kept.
        reading: ``joint`` one text per history, as in the paper; ``parts`` preference and titles each on its own.
        dense: learn a vector of each item beside its codes, read the history's and rank by them, see `DenseHead`;
            false reads texts only and ranks by codes, as in the paper.
        text_length: word pieces that are read per example.
        recency: learned embedding of how many titles ago a token was read.
        state_dropout: dropout on the projected states.
        cache_mb: memory for kept encoder states.
    """

    section: ClassVar[str] = "mendertok"

    epochs: Count = 15
    patience: Count = 4
    encoder_training: Literal["frozen", "lora"] = "frozen"
    reading: Literal["joint", "parts"] = "joint"
    dense: bool = True
    text_length: Annotated[int, Field(ge=16)] = 128
    recency: bool = True
    state_dropout: Share = 0.2
    cache_mb: CountOrZero = 2048


@dataclass(frozen=True, kw_only=True)
class MenderEmbSettings(ConditionedSettings):
    """Settings of MenderEmb.

    Args:
        faithful: no positions, and pads are attended, as released; for comparison.
    """

    section: ClassVar[str] = "menderemb"

    faithful: bool = False
