"""Settings of the recipes that write semantic ids; no engine is loaded here."""

from dataclasses import dataclass
from typing import Literal

from infra.errors import SettingError
from ray_jobs.encoders.settings import PACKAGED
from ray_jobs.recommenders.settings import RecipeSettings

Fused = Literal["fine_steering", "coarse_steering", "positive", "negative"]


@dataclass(frozen=True, kw_only=True)
class GenerativeSettings(RecipeSettings):
    """Settings of the code decoder.

    Args:
        width: of the decoder's states.
        heads, head_width: of its attention; their product need not be `width`.
        inner: width of the feed-forward part.
        beams: kept at every level when decoding; at least as many as items asked for.
        max_per_first_code: cap on recommended items that share their first code; 0 for no cap.
        label_smoothing: share of probability spread over a level's codes in the training loss.
        negative_weight: of examples whose preference rejects the target, against those of the others.
        dense_weight: of the loss over item vectors beside that over codes, for recipes with a dense head.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    head_width: int = 32
    inner: int = 256
    dropout: float = 0.2
    beams: int = 20
    max_per_first_code: int = 0
    label_smoothing: float = 0.1
    negative_weight: float = 1.0
    dense_weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beams < 10:
            raise SettingError(f"beams is {self.beams}: at least 10 are needed for metrics at 10")
        if self.max_per_first_code < 0:
            raise SettingError(f"max_per_first_code is {self.max_per_first_code}: a cap from 1, or 0 for none")
        for name in ("negative_weight", "dense_weight"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}: 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class TigerSettings(GenerativeSettings):
    """Settings of TIGER.

    Args:
        encoder_layers: layers that read the history.
        compile_search: single requests are answered by compiled code, see `CompiledSearch`; it needs a C++ compiler.
    """

    encoder_layers: int = 2
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
    preference_dropout: float = 0.3
    matched_share: float = 0.5
    swap_share: float = 0.0
    alone_share: float = 0.0
    twin_share: float = 0.0
    fuse: tuple[Fused, ...] = ()
    fuse_repeats: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("preference_dropout", "matched_share", "swap_share", "alone_share", "twin_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}: a share from 0 to 1")
        if self.fuse_repeats < 1:
            raise SettingError(f"fuse_repeats is {self.fuse_repeats}: at least 1 is needed")


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

    epochs: int = 15
    patience: int = 4
    encoder_training: Literal["frozen", "lora"] = "frozen"
    reading: Literal["joint", "parts"] = "joint"
    dense: bool = True
    text_length: int = 128
    recency: bool = True
    state_dropout: float = 0.2
    cache_mb: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.state_dropout <= 1:
            raise SettingError(f"mendertok.state_dropout is {self.state_dropout}: a share from 0 to 1")
        if self.text_length < 16:
            raise SettingError(f"mendertok.text_length is {self.text_length}: at least 16 word pieces are needed")


@dataclass(frozen=True, kw_only=True)
class MenderEmbSettings(ConditionedSettings):
    """Settings of MenderEmb.

    Args:
        faithful: no positions, and pads are attended, as released; for comparison.
    """

    faithful: bool = False
