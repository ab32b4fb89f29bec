"""MenderTok: preferences and titles as language in, semantic ids out (Paischer et al., 2025), sized for a CPU.

A pretrained text encoder reads one text: a prefix and the preference, then a prefix and the titles of the history,
oldest first. If the text is too long, the oldest titles are dropped. A linear layer and a norm bring the encoder's
token states to the width and scale of a randomly initialised T5-style decoder, which attends to them and generates the
next item's code tuple.

Differences from the released model: the default encoder is MiniLM-L6, not FLAN-T5-small (the setting ``encoder`` takes
any other); padding is dynamic; the softmax of a level covers that level's codes only; projected states are normalised
(otherwise the decoder fails to learn a planted ring of clusters); tokens have a learned embedding of how many titles
ago they occurred (``recency``), because T5's cross-attention has no positions and a frozen encoder does not tell which
title is the newest. With ``dense`` (the default, not in the paper) every item has a vector; those of the history are
prepended to the text's states, and items are ranked by them, see `DenseHead`. With ``reading="parts"`` the preference
and each title are encoded separately and their states concatenated: titles do not attend to each other in the encoder,
and each is encoded once per catalogue, not once per history.

States of a frozen encoder are computed once per distinct text and cached in float16 (up to ``cache_mb``; other texts
are encoded each time). Evaluation and serving use the newest preferences joined: no oracle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from infra.errors import SettingError
from ray_jobs.data.batches import Batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples
from ray_jobs.encoders.text import TextEncoder
from ray_jobs.recipes.generative.conditioning import ConditionedRecommender
from ray_jobs.recipes.generative.dense_head import DenseHead
from ray_jobs.recipes.generative.settings import MenderTokSettings
from ray_jobs.recommenders.dropout import Dropout
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.training.trainable import Notify, silent
from schemas.errors import DataError

PREFERENCE_PREFIX = "Preferences: "
ITEMS_PREFIX = "Items: "
SEPARATOR = "; "
ADAPTED = {"bert": ["query", "key", "value", "attention.output.dense"], "t5": ["q", "k", "v", "o"]}
ENCODING_CHUNK = 256


@dataclass(frozen=True)
class Piece:
    """One text for the encoder.

    Args:
        ages: runs of (age, number of tokens) from the start of the text: age 1 is the newest title, 2 the one before, 0
            other text. The rest of the text has age 0; runs beyond its end are cut.
    """

    text: str
    ages: tuple[tuple[int, int], ...] = ()


class MenderTok(ConditionedRecommender):
    """Text in, code tuples out."""

    name: ClassVar[str] = "mendertok"
    earlier: ClassVar[Mapping[str, Any]] = {"dense": False, "text_hidden": 0}
    item_rows: Mapping[str, int] = {"dense.items.weight": 0}
    computed: ClassVar[frozenset[str]] = frozenset({"dense.texts"})

    settings: MenderTokSettings

    def __init__(self, settings: MenderTokSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        if settings.dense:
            dim, hidden = self.text_encoder.dim, settings.text_hidden
            self.dense = DenseHead(len(catalogue), dim, settings.width, catalogue.interacted, hidden)
        self.projection = nn.Linear(self.text_encoder.dim, settings.width)
        self.norm = nn.RMSNorm(settings.width)
        self.recency = nn.Embedding(settings.max_history + 1, settings.width) if settings.recency else None
        if self.recency is not None:
            nn.init.normal_(self.recency.weight, std=0.1)
        self.state_dropout = Dropout(settings.state_dropout)
        self._cached: dict[str, Tensor] = {}  # float16[T, D] by text
        self.cache_bytes, self.cache_limit = 0, settings.cache_mb * 2**20
        self.language_model = self._with_adapters() if settings.encoder_training == "lora" else None
        joint = settings.reading == "joint"
        self._special = self.text_encoder.count_tokens([""])[0]
        counted = self.text_encoder.count_tokens([title + SEPARATOR * joint for title in catalogue.titles])
        self._title_lengths = [n - self._special * joint for n in counted]

    @classmethod
    def packages(cls, settings: RecipeSettings, *, steered: bool) -> tuple[str, ...]:
        """See `Recommender.packages`; adapters need another one."""
        adapted = isinstance(settings, MenderTokSettings) and settings.encoder_training == "lora"
        return (*super().packages(settings, steered=steered), *(("peft",) if adapted else ()))

    @property
    def preference_encoder(self) -> tuple[TextEncoder, int]:
        """See `Recommender.preference_encoder`; the prefixes take some of the tokens."""
        around = self.text_encoder.count_tokens([f"{PREFERENCE_PREFIX}. {ITEMS_PREFIX}"])[0] - self._special
        return self.text_encoder, min(self.settings.text_length, self.text_encoder.max_length) - around

    def _with_adapters(self) -> nn.Module:
        kind = self.text_encoder.model.config.model_type
        if kind not in ADAPTED:
            raise SettingError(
                f"mendertok.encoder_training=lora supports encoders of type {', '.join(ADAPTED)}, not {kind!r}; "
                "use encoder_training=frozen"
            )
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=16, lora_alpha=1, lora_dropout=0.0, target_modules=ADAPTED[kind])
        adapted: nn.Module = get_peft_model(self.text_encoder.model, config)
        return adapted

    def pieces(self, items: Sequence[int], preference: str) -> list[Piece]:
        """The encoder's texts for a history (catalogue indices, oldest first) and a preference (may be empty).

        If they are too long, the oldest titles are dropped, except the newest one; the encoder truncates the rest.
        """
        if self.settings.reading == "joint":
            head = (f"{PREFERENCE_PREFIX}{preference}. " if preference else "") + ITEMS_PREFIX
            used = self.text_encoder.count_tokens([head])[0]
            kept = self._newest(items, self.settings.text_length - used)
            ages = [(0, used - self._special + self.text_encoder.leading_tokens)]
            ages += [(len(kept) - i, self._title_lengths[item]) for i, item in enumerate(kept)]
            return [Piece(head + SEPARATOR.join(self.catalogue.titles[item] for item in kept), tuple(ages))]
        head = f"{PREFERENCE_PREFIX}{preference}" if preference else ITEMS_PREFIX
        kept = self._newest(items, self.settings.text_length - self.text_encoder.count_tokens([head])[0])
        titles = [
            Piece(self.catalogue.titles[item], ((len(kept) - i, self._title_lengths[item]),))
            for i, item in enumerate(kept)
        ]
        return [Piece(head), *titles]

    def _newest(self, items: Sequence[int], room: int) -> list[int]:
        """The newest items whose titles fit into `room` tokens, oldest first; at least one if there is any."""
        kept: list[int] = []
        for item in reversed(items):
            room -= self._title_lengths[item]
            if kept and room < 0:
                break
            kept.append(item)
        return kept[::-1]

    def _batch_pieces(self, batch: Batch) -> list[list[Piece]]:
        rows = zip(batch.history.tolist(), batch.lengths.tolist(), self.read(batch), strict=True)
        return [self.pieces(history[:length], preference) for history, length, preference in rows]

    def _read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """States [T, D] of each text, without padding; float16 with a frozen encoder, cached or not."""
        learning = self.language_model is not None and self.training
        read = self._adapted_states if learning else self.text_encoder.token_states
        states, mask = read(texts, self.settings.text_length)
        if self.language_model is None:
            states = states.to(torch.float16)
        lengths = mask.sum(dim=1).tolist()
        return {text: states[i, : lengths[i]] for i, text in enumerate(texts)}

    def _adapted_states(self, texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        inputs = self.text_encoder.tokenizer(
            list(texts), truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        ).to(self.device)
        out = self.text_encoder.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return out.last_hidden_state, inputs["attention_mask"].bool()

    def _cache(self, text: str, states: Tensor) -> bool:
        """Cache `states`, unless there is no room."""
        size = states.numel() * states.element_size()
        if self.cache_bytes + size > self.cache_limit:
            return False
        self.cache_bytes += size
        self._cached[text] = states.clone()
        return True

    def _states_of(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """States of distinct texts, from the cache if possible."""
        if self.language_model is not None:
            return self._read(texts)
        found = {text: self._cached.get(text) for text in texts}
        missing = [text for text, states in found.items() if states is None]
        fresh: dict[str, Tensor] = {}
        for start in range(0, len(missing), ENCODING_CHUNK):
            fresh.update(self._read(missing[start : start + ENCODING_CHUNK]))
        for text, states in fresh.items():
            self._cache(text, states)
        return {text: fresh[text] if states is None else states.to(self.device) for text, states in found.items()}

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:
        """Encode the distinct texts of `examples` until the cache is full."""
        if self.dense is not None:
            self._ready(self.dense)
        if self.language_model is not None:
            return
        self.text_encoder.model.to(self.device)
        texts = {
            piece.text
            for row in range(len(examples))
            for piece in self.pieces(examples.history(row).tolist(), examples.preferences[row])
        }
        waiting = sorted(texts - self._cached.keys(), key=lambda text: (len(text), text))
        for start in range(0, len(waiting), ENCODING_CHUNK):
            notify(start, len(waiting), "encoding texts")
            chunk = self._read(waiting[start : start + ENCODING_CHUNK])
            if not all(self._cache(text, states) for text, states in chunk.items()):
                return

    def release(self) -> None:
        """Drop the cached states."""
        self._cached.clear()
        self.cache_bytes = 0

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Projected states of each example's texts; with a dense head preceded by a row per item of the history."""
        self.text_encoder.model.to(self.device)
        rows = self._batch_pieces(batch)
        states = self._states_of(list(dict.fromkeys(piece.text for row in rows for piece in row)))
        joined = [torch.cat([states[piece.text] for piece in row]) for row in rows]  # [T, D] each
        lengths = torch.tensor([len(row) for row in joined], device=self.device)
        padded = nn.utils.rnn.pad_sequence(joined, batch_first=True).to(self.tokens.table.weight.dtype)
        mask = torch.arange(padded.shape[1], device=self.device) < lengths[:, None]
        out = self.state_dropout(self.norm(self.projection(padded)))
        if self.recency is not None:
            ages = [torch.cat([_ages(piece, len(states[piece.text])) for piece in row]) for row in rows]
            out = out + self.recency(nn.utils.rnn.pad_sequence(ages, batch_first=True).to(self.device))
        if self.dense is None:
            return out, mask
        items, real = self._item_rows(batch, self._ready(self.dense))
        return torch.cat([items, out], dim=1), torch.cat([real, mask], dim=1)

    def _item_rows(self, batch: Batch, head: DenseHead) -> tuple[Tensor, Tensor]:
        """A row per item of the history, float[B, L, d], and bool[B, L], False at padding."""
        rows, real = head.rows(batch.history), batch.history >= 0
        if self.recency is not None:
            ages = batch.lengths[:, None] - torch.arange(real.shape[1], device=real.device)
            rows = rows + self.recency(ages.clamp(min=0))
        return self.state_dropout(rows), real

    def _ready(self, head: DenseHead) -> DenseHead:
        if not head.ready:
            self.text_encoder.model.to(self.device)
            head.set_texts(torch.from_numpy(self.text_encoder.encode(self.catalogue.texts)).to(self.device))
        return head

    def trained_state(self) -> dict[str, Tensor]:
        """Decoder, projection, embeddings and adapters, without the encoder's weights."""
        return {name: tensor for name, tensor in self.state_dict().items() if not _is_frozen(name)}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_state`."""
        missing, unexpected = self.load_state_dict(dict(state), strict=False)
        wrong = [name for name in missing if not _is_frozen(name)] + list(unexpected)
        if wrong:
            raise DataError(
                f"weights do not fit the recipe {self.name} ({len(wrong)} tensors, first {wrong[0]}): train it again"
            )


def _is_frozen(name: str) -> bool:
    return name.startswith("language_model.") and "lora_" not in name


def _ages(piece: Piece, length: int) -> Tensor:
    """Age of each of a text's tokens, int64[length]."""
    ages = torch.zeros(length, dtype=torch.int64)
    start = 0
    for age, count in piece.ages:
        ages[start : start + count] = age
        start += count
    return ages
