"""Settings of the denoiser's data, base model, tuning and detection."""

from dataclasses import dataclass
from typing import Literal

from infra.errors import SettingError

SECTION = "tune_denoiser"
TINY = "tiny"


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings:
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
        batch_size: windows in an optimiser step, over all workers.
        micro_batch_size: windows in one pass of one worker; gradients add up to `batch_size`.
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
    """

    base: str = TINY
    window: int = 11
    shortest: int = 4
    windows: int = 5000
    heldout_windows: int = 500
    heldout_share: float = 0.1
    max_title_words: int = 12
    max_tokens: int = 512
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    loss_on: Literal["answer", "prompt+answer"] = "answer"
    epochs: int = 50
    batch_size: int = 128
    micro_batch_size: int = 16
    learning_rate: float = 1e-4
    warmup_steps: int = 20
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    score: Literal["title", "first_token"] = "title"
    scoring_batch_size: int = 16
    threshold_percentile: float = 0.9
    max_edits: int = 1
    max_uncertainty: float = 1.0
    tiny_width: int = 128
    tiny_layers: int = 4
    tiny_heads: int = 4
    tiny_vocabulary: int = 2000
    tiny_epochs: int = 5
    tiny_learning_rate: float = 2e-3
    tiny_batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        at_least = {
            "window": 3,
            "shortest": 3,
            "tiny_vocabulary": 300,
            **dict.fromkeys(("windows", "heldout_windows", "max_title_words", "max_tokens"), 1),
            **dict.fromkeys(("lora_rank", "epochs", "batch_size", "micro_batch_size", "scoring_batch_size"), 1),
            **dict.fromkeys(("tiny_width", "tiny_layers", "tiny_heads", "tiny_epochs", "tiny_batch_size"), 1),
            **dict.fromkeys(("warmup_steps", "max_edits"), 0),
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise SettingError(f"{SECTION}.{name} is {getattr(self, name)}: at least {least} is needed")
        if self.shortest > self.window:
            raise SettingError(f"{SECTION}.shortest is {self.shortest}, above {SECTION}.window, {self.window}")
        if not 0 < self.heldout_share < 1:
            raise SettingError(f"{SECTION}.heldout_share is {self.heldout_share}: a share between 0 and 1 is needed")
        for name in ("threshold_percentile", "max_uncertainty"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{SECTION}.{name} is {getattr(self, name)}: a share from 0 to 1 is needed")
        if self.tiny_width % (2 * self.tiny_heads):
            raise SettingError(f"{SECTION}.tiny_width is {self.tiny_width}: a multiple of twice tiny_heads is needed")
