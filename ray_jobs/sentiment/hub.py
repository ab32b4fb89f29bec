"""Sentiment by a sequence classifier from a hub or a folder."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from infra.errors import SettingError
from ray_jobs.encoders.hub import loading, resolve
from ray_jobs.encoders.streaming import texts_through
from ray_jobs.sentiment.settings import PROBE, STAGE, ReviewSentimentsSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_POSITIVE, _NEGATIVE, _BETWEEN = {"positive", "pos"}, {"negative", "neg"}, {"neutral", "neu", "mixed"}
_MAX_LENGTH = 512


class HubClassifier:
    """A frozen classifier; labels between positive and negative are ignored.

    Args:
        positive, negative: indices of the two labels.
        max_length: maximum number of tokens of a text; longer texts are truncated.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        positive: int,
        negative: int,
        max_length: int,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.labels = [negative, positive]
        self.max_length = max_length

    @torch.no_grad()
    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Probability of positive versus negative for a batch of texts: float32[N]."""
        batch = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        ).to(self.model.device)
        logits = self.model(**batch).logits[:, self.labels].float()
        result: npt.NDArray[np.float32] = logits.softmax(1)[:, 1].cpu().numpy()
        return result


def load_hub_classifier(name: str) -> HubClassifier:
    """Load ``hub:<repo id or folder>``.

    Raises:
        SettingError: it cannot be loaded, or its labels do not tell which one is positive.
    """
    source, revision = resolve(name)
    transformers_logging.disable_progress_bar()
    with loading(f"{STAGE}.classifier={name!r}", PROBE):
        model = AutoModelForSequenceClassification.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    positive, negative = _labels(name, model.config)
    positions = getattr(model.config, "max_position_embeddings", None) or _MAX_LENGTH
    return HubClassifier(
        model, tokenizer, positive, negative, min(_MAX_LENGTH, positions, int(tokenizer.model_max_length))
    )


def require_hub_classifier(name: str) -> None:
    """Check that `load_hub_classifier` finds `name` and knows its labels, without loading weights.

    Raises:
        SettingError: as `load_hub_classifier`.
    """
    source, revision = resolve(name)
    with loading(f"{STAGE}.classifier={name!r}", PROBE):
        config = AutoConfig.from_pretrained(source, revision=revision)
    _labels(name, config)


def hub_scores(texts: pa.Table, own: ReviewSentimentsSettings, use_gpu: bool) -> Iterator[pa.Table]:
    """The columns content_hash and score, the probability of positive, batch by batch.

    Args:
        texts: as from `distinct_texts`.

    Raises:
        SettingError: as `load_hub_classifier`.
    """
    require_hub_classifier(own.classifier)
    yield from texts_through(texts, _Classify, (own.classifier, use_gpu), own.copies, own.batch_size, use_gpu)


class _Classify:
    """The actor that holds a classifier."""

    def __init__(self, name: str, use_gpu: bool) -> None:
        self._classifier = load_hub_classifier(name)
        if use_gpu:
            self._classifier.model.to("cuda")  # type: ignore[arg-type]

    def __call__(self, batch: pa.Table) -> pa.Table:
        scores = self._classifier.scores(batch["text"].to_pylist())
        return pa.table({"content_hash": batch["content_hash"], "score": pa.array(scores)})


def _labels(name: str, config: "PretrainedConfig") -> tuple[int, int]:
    """Indices of the positive and the negative label."""
    labels = {int(number): str(label) for number, label in (config.id2label or {}).items()}
    found = [
        [number for number, label in labels.items() if label.strip().lower() in words]
        for words in (_POSITIVE, _NEGATIVE, _BETWEEN)
    ]
    if [len(numbers) for numbers in found[:2]] != [1, 1] or sum(map(len, found)) != len(labels):
        raise SettingError(
            f"{STAGE}.classifier={name!r} has the labels {', '.join(labels.values())}, which do not say what is "
            "positive: one must be called positive, one negative and any other neutral (id2label in its config.json). "
            "Use another classifier, or save a copy with such labels and give 'hub:<folder>'"
        )
    return found[0][0], found[1][0]
