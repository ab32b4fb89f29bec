"""MenderTok: preferences and titles as language in, semantic ids out (Paischer et al., 2025), sized for a CPU.

A pretrained text encoder reads one text: a preference prefix and the preference, then an items prefix and the titles
of the history, oldest first. When the text is too long the preference stays and the oldest whole titles go. A linear
map and a norm bring the encoder's token states to the width and scale of a randomly initialised T5-style decoder,
which attends to them (pads masked) and writes the next item's code tuple.

Differences from the released model: the encoder is MiniLM-L6 by default where theirs is FLAN-T5-small (any encoder
that `ray_jobs.encoders.text` loads can be named); padding is dynamic; each level's softmax runs over that level's
codes; projected states are normalised (without it the decoder does not learn a planted ring of clusters that it
learns perfectly with it); tokens carry a learned embedding of how many titles ago they were read (``recency``),
because cross-attention in T5 has no positions of its own and a frozen encoder does not say which title is the newest.
With ``dense`` (the default, not in the paper) every item has a vector of its own, those of the history stand beside the
text's states, and the list is ranked by them, see `DenseHead`. With ``reading="parts"`` the preference and each title
are read on their own and their states laid side by side: titles no longer see each other inside the encoder, and each
is encoded once per catalogue, not once per history.

States of a frozen encoder are computed once per distinct text and kept in float16 (up to
``cache_mb``; texts beyond it are encoded again each time). Evaluation and serving give the newest preferences
joined: no oracle.
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
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.text import TextEncoder, TransformerEncoder, load_text_encoder
from ray_jobs.recipes.generative.base import GenerativeRecommender
from ray_jobs.recipes.generative.conditioning import conditioned
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
        ages: runs of (age, word pieces) from the text's start: age 0 is no title, 1 the newest title, 2 the one before.
            What is left of the text has age 0, and a run past its end is cut.
    """

    text: str
    ages: tuple[tuple[int, int], ...] = ()


class StateStore:
    """Token states float16[T, D] by text, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit, self.used = limit_bytes, 0
        self._states: dict[str, Tensor] = {}

    def get(self, text: str) -> Tensor | None:
        """States of `text` if they are kept."""
        return self._states.get(text)

    def put(self, text: str, states: Tensor) -> bool:
        """Keep `states`; False when there is no room left."""
        size = states.numel() * states.element_size()
        if self.used + size > self.limit:
            return False
        self.used += size
        self._states[text] = states
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()
        self.used = 0


class MenderTok(GenerativeRecommender):
    """Language in, code tuples out."""

    name: ClassVar[str] = "mendertok"
    earlier: ClassVar[Mapping[str, Any]] = {"dense": False}
    item_rows: ClassVar[Mapping[str, int]] = {"dense.items.weight": 0}
    computed: ClassVar[frozenset[str]] = frozenset({"dense.texts"})

    settings: MenderTokSettings

    def __init__(self, settings: MenderTokSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        # In a dict, so that frozen weights stay out of the module's own state and of bundles.
        self._outside: dict[str, TransformerEncoder] = {"encoder": load_text_encoder(settings.encoder)}
        if settings.dense:
            self.dense = DenseHead(len(catalogue), self.encoder.dim, settings.width, catalogue.interacted)
        self.projection = nn.Linear(self.encoder.dim, settings.width)
        self.norm = nn.RMSNorm(settings.width)
        self.recency = nn.Embedding(settings.max_history + 1, settings.width) if settings.recency else None
        if self.recency is not None:
            nn.init.normal_(self.recency.weight, std=0.1)
        self.state_dropout = Dropout(settings.state_dropout)
        self.store = StateStore(settings.cache_mb * 2**20)
        self.language_model = self._with_adapters() if settings.encoder_training == "lora" else None
        joint = settings.reading == "joint"
        self._special = self.encoder.count_tokens([""])[0]
        counted = self.encoder.count_tokens([title + SEPARATOR * joint for title in catalogue.titles])
        self._title_lengths = [n - self._special * joint for n in counted]

    @classmethod
    def packages(cls, settings: RecipeSettings, *, steered: bool) -> tuple[str, ...]:
        """As `Recommender.packages`; adapters bring their own."""
        adapted = isinstance(settings, MenderTokSettings) and settings.encoder_training == "lora"
        return (*super().packages(settings, steered=steered), *(("peft",) if adapted else ()))

    @property
    def encoder(self) -> TransformerEncoder:
        """The pretrained encoder."""
        return self._outside["encoder"]

    @property
    def preference_encoder(self) -> tuple[TextEncoder, int]:
        """What stands around a preference is read, too."""
        around = self.encoder.count_tokens([f"{PREFERENCE_PREFIX}. {ITEMS_PREFIX}"])[0] - self._special
        return self.encoder, min(self.settings.text_length, self.encoder.max_length) - around

    def _with_adapters(self) -> nn.Module:
        kind = self.encoder.model.config.model_type
        if kind not in ADAPTED:
            raise SettingError(
                f"mendertok.encoder_training=lora knows encoders of type {', '.join(ADAPTED)}, not {kind!r}; "
                "use encoder_training=frozen"
            )
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=16, lora_alpha=1, lora_dropout=0.0, target_modules=ADAPTED[kind])
        adapted: nn.Module = get_peft_model(self.encoder.model, config)
        return adapted

    def pieces(self, items: Sequence[int], preference: str) -> list[Piece]:
        """What the encoder reads for a history (catalogue indices, oldest first) and a preference (may be empty).

        On overflow the oldest whole titles go; the newest one stays, and the encoder cuts what is still too long.
        """
        if self.settings.reading == "joint":
            head = (f"{PREFERENCE_PREFIX}{preference}. " if preference else "") + ITEMS_PREFIX
            used = self.encoder.count_tokens([head])[0]
            kept = self._newest(items, self.settings.text_length - used)
            ages = [(0, used - self._special + self.encoder.leading_tokens)]
            ages += [(len(kept) - i, self._title_lengths[item]) for i, item in enumerate(kept)]
            return [Piece(head + SEPARATOR.join(self.catalogue.titles[item] for item in kept), tuple(ages))]
        head = f"{PREFERENCE_PREFIX}{preference}" if preference else ITEMS_PREFIX
        kept = self._newest(items, self.settings.text_length - self.encoder.count_tokens([head])[0])
        titles = [
            Piece(self.catalogue.titles[item], ((len(kept) - i, self._title_lengths[item]),))
            for i, item in enumerate(kept)
        ]
        return [Piece(head), *titles]

    def _newest(self, items: Sequence[int], room: int) -> list[int]:
        """The newest items whose titles fit into `room` word pieces, oldest first; at least one where there is one."""
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
        """States [T, D] of each text, without padding; float16 with a frozen encoder, so that kept ones are equal."""
        learning = self.language_model is not None and self.training
        states, mask = self._adapted_states(texts) if learning else self.encoder.token_states(texts, self._limit)
        if self.language_model is None:
            states = states.to(torch.float16)
        lengths = mask.sum(dim=1).tolist()
        return {text: states[i, : lengths[i]] for i, text in enumerate(texts)}

    @property
    def _limit(self) -> int:
        return self.settings.text_length

    def _adapted_states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        inputs = self.encoder.tokenizer(
            list(texts), truncation=True, max_length=self._limit, padding=True, return_tensors="pt"
        ).to(self.device)
        out = self.encoder.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return out.last_hidden_state, inputs["attention_mask"].bool()

    def _states_of(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """States of distinct texts: kept ones, and the others encoded now and kept while there is room."""
        if self.language_model is not None:
            return self._read(texts)
        found = {text: self.store.get(text) for text in texts}
        missing = [text for text, states in found.items() if states is None]
        fresh: dict[str, Tensor] = {}
        for start in range(0, len(missing), ENCODING_CHUNK):
            fresh.update(self._read(missing[start : start + ENCODING_CHUNK]))
        for text, states in fresh.items():
            self.store.put(text, states.clone())
        return {text: fresh[text] if states is None else states.to(self.device) for text, states in found.items()}

    def prepare(self, examples: Examples, notify: Notify = silent) -> None:
        """Encode the distinct texts of `examples` while there is room to keep them."""
        if self.dense is not None:
            self._ready(self.dense)
        if self.language_model is not None:
            return
        self.encoder.model.to(self.device)
        texts = {
            piece.text
            for row in range(len(examples))
            for piece in self.pieces(examples.history(row).tolist(), examples.preferences[row])
        }
        waiting = sorted((text for text in texts if self.store.get(text) is None), key=lambda t: (len(t), t))
        for start in range(0, len(waiting), ENCODING_CHUNK):
            notify(start, len(waiting), "encoding texts")
            if any(
                not self.store.put(text, states.clone())
                for text, states in self._read(waiting[start : start + ENCODING_CHUNK]).items()
            ):
                return

    def release(self) -> None:
        """Forget kept states."""
        self.store.clear()

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Projected states of each example's pieces, one after another; with a dense head a row per item before."""
        self.encoder.model.to(self.device)
        rows = self._batch_pieces(batch)
        states = self._states_of(list(dict.fromkeys(piece.text for row in rows for piece in row)))
        joined = [torch.cat([states[piece.text] for piece in row]) for row in rows]
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
        """A row per item of the history, which says what no title says: float[B, L, d], and bool[B, L]."""
        rows, real = head.rows(batch.history), batch.history >= 0
        if self.recency is not None:
            ages = batch.lengths[:, None] - torch.arange(real.shape[1], device=real.device)
            rows = rows + self.recency(ages.clamp(min=0))
        return self.state_dropout(rows), real

    def _ready(self, head: DenseHead) -> DenseHead:
        if not head.ready:
            self.encoder.model.to(self.device)
            head.set_texts(torch.from_numpy(self.encoder.encode(self.catalogue.texts)).to(self.device))
        return head

    def training_examples(self, histories: Histories) -> Examples:
        """Every training position, with a preference as `ray_jobs.recipes.generative.conditioning` says."""
        examples = super().training_examples(histories)
        return conditioned(examples, histories, self.settings, self.encoder, self.catalogue)

    def trained_state(self) -> dict[str, Tensor]:
        """Decoder, projection, embeddings and adapters; never the encoder's own weights."""
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
    """Age of each of a text's word pieces, int64[length]."""
    ages = torch.zeros(length, dtype=torch.int64)
    start = 0
    for age, count in piece.ages:
        ages[start : start + count] = age
        start += count
    return ages
