"""Settings of the denoiser's data, base model, tuning and detection."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from infra.bounds import Bounded, Count, CountOrZero, InnerShare, Share
from infra.errors import SettingError

SECTION = "tune_denoiser"
TINY = "tiny"


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings(Bounded):
    """Defaults are the paper's where it has one; a small base wants larger learning rates.

    Args:
        base: ``hub:<repo id>``, with ``@<revision>`` behind it if wanted; ``hub:<folder>``, for a causal language model
            that lies there; or ``tiny``: a small Llama-style model, pre-trained here on the histories' own text.
        window: events in a window at most.
        shortest: fewer events make no window.
        windows: windows to tune on; where the histories hold fewer, they come again with another swap.
        heldout_windows: windows to report on at most.
        heldout_share: share of the users, chosen by hash, whose windows nothing is fitted on.
        max_title_words: longer titles are cut.
        max_tokens: longest example in tokens.
        lora_rank, lora_alpha, lora_dropout: of the adapter.
        target_modules: linear layers that get an adapter, by the end of their names.
        loss_on: ``answer``, or ``prompt+answer`` as in the paper's code.
        epochs: passes over the windows.
        batch_size: windows in an optimiser step, over all workers.
        micro_batch_size: windows in one pass of one worker; gradients add up to `batch_size`.
        learning_rate, weight_decay: of AdamW.
        gradient_clip: largest norm of the gradient.
        warmup_steps: optimiser steps of linear warm-up, before a linear decay to zero.
        dtype: of the base's weights; the adapter's are float32.
        score: a title's mean log-probability per token, or ``first_token``, the paper's, in which titles that begin
            alike tie.
        scoring_batch_size: windows scored in one pass.
        threshold_percentile: share of all scores of a split that is below the threshold (paper: 0.6 where one trains,
            0.9 where one tests).
        max_edits: positions changed in a sequence at most, most suspect first.
        max_uncertainty: sequences above it are left alone; 1 edits whatever the uncertainty.
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
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    loss_on: Literal["answer", "prompt+answer"] = "answer"
    epochs: Count = 50
    batch_size: Count = 128
    micro_batch_size: Count = 16
    learning_rate: float = 1e-4
    warmup_steps: CountOrZero = 20
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
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
    tiny_learning_rate: float = 2e-3
    tiny_batch_size: Count = 32
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortest > self.window:
            raise SettingError(f"{SECTION}.shortest is {self.shortest}, above {SECTION}.window, {self.window}")
        if self.tiny_width % (2 * self.tiny_heads):
            raise SettingError(f"{SECTION}.tiny_width is {self.tiny_width}: a multiple of twice tiny_heads is needed")
