"""Settings of the denoiser's data, base model, tuning and detection."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import (
    Bounded,
    Count,
    CountOrZero,
    InnerShare,
    NonNegative,
    Positive,
    PositiveOrInfinite,
    Seed,
    Share,
    ShareBelowOne,
)
from infra.errors import SettingError

SECTION = "tune_denoiser"
TINY = "tiny"


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings(Bounded):
    """Settings of the denoiser. Defaults follow the paper; a small base needs larger learning rates.

    Args:
        base: ``hub:<repo id>``, optionally with ``@<revision>``, or ``hub:<folder>``, for a causal language model; or
            ``tiny``: a small Llama-style model, pre-trained here on the text of the histories.
        window: maximum number of events in a window.
        shortest: minimum number of events in a window.
        windows: windows to tune on; if the histories have fewer, they are repeated with other swaps.
        heldout_windows: maximum number of windows to report on.
        heldout_share: share of the users, chosen by hash, whose windows are held out for the report.
        max_title_words: longer titles are truncated.
        max_tokens: maximum length of an example.
        lora_rank, lora_alpha, lora_dropout: of the adapter.
        target_modules: linear layers with an adapter, by the last part of their names.
        loss_on: ``answer``, or ``prompt+answer`` as in the paper's code.
        epochs: passes over the windows.
        batch_size: windows per optimiser step, over all workers.
        micro_batch_size: windows per forward pass of a worker.
        learning_rate, weight_decay: of AdamW.
        gradient_clip: maximum norm of the gradient; infinite for none.
        warmup_steps: optimiser steps of linear warm-up, before a linear decay to zero.
        dtype: of the base's weights; the adapter's are float32.
        score: ``title``, its mean log-probability per token, or ``first_token`` as in the paper, with ties between
            titles that begin alike.
        scoring_batch_size: windows scored in one pass.
        threshold_percentile: share of a split's scores below the threshold (paper: 0.6 in training, 0.9 in testing).
        max_edits: maximum number of positions to change in a sequence, most suspect first.
        max_uncertainty: sequences with a larger uncertainty are not edited; 1 edits all.
        tiny_width, tiny_layers, tiny_heads, tiny_vocabulary: size of the tiny base.
        tiny_epochs, tiny_learning_rate, tiny_batch_size: its pre-training.
        seed: of windows, swaps and weights.
    """

    section: ClassVar[str] = SECTION

    base: str = TINY
    window: Annotated[int, Field(ge=3)] = 11
    shortest: Annotated[int, Field(ge=3)] = 4
    windows: Count = 5000
    heldout_windows: Count = 500
    heldout_share: InnerShare = 0.1
    max_title_words: Count = 12
    max_tokens: Count = 512
    lora_rank: Count = 8
    lora_alpha: Count = 16
    lora_dropout: ShareBelowOne = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    loss_on: Literal["answer", "prompt+answer"] = "answer"
    epochs: Count = 50
    batch_size: Count = 128
    micro_batch_size: Count = 16
    learning_rate: Positive = 1e-4
    warmup_steps: CountOrZero = 20
    weight_decay: NonNegative = 0.0
    gradient_clip: PositiveOrInfinite = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    score: Literal["title", "first_token"] = "title"
    scoring_batch_size: Count = 16
    threshold_percentile: Share = 0.9
    max_edits: CountOrZero = 1
    max_uncertainty: Share = 1.0
    tiny_width: Count = 128
    tiny_layers: Count = 4
    tiny_heads: Count = 4
    tiny_vocabulary: Annotated[int, Field(ge=300)] = 2000
    tiny_epochs: Count = 5
    tiny_learning_rate: Positive = 2e-3
    tiny_batch_size: Count = 32
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortest > self.window:
            raise SettingError(f"{SECTION}.shortest is {self.shortest}, above {SECTION}.window, {self.window}")
        if self.tiny_width % (2 * self.tiny_heads):
            raise SettingError(f"{SECTION}.tiny_width is {self.tiny_width}: a multiple of twice tiny_heads is needed")
