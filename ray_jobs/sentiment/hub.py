"""A sequence classifier from a hub or a folder, as a judge of tone."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from infra.errors import SettingError
from ray_jobs.encoders.settings import HUB_PREFIX
from ray_jobs.encoders.streaming import texts_through
from ray_jobs.sentiment.settings import PROBE, STAGE, ReviewSentimentsSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_POSITIVE, _NEGATIVE, _BETWEEN = {"positive", "pos"}, {"negative", "neg"}, {"neutral", "neu", "mixed"}
_MAX_LENGTH = 512


class HubClassifier:
    """A frozen classifier; a label between positive and negative is left out of account.

    Args:
        positive, negative: numbers of the two labels.
        max_length: most word pieces that are read of a text; the rest is cut off.
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
        """Probability of positive against negative for a batch of texts: float32[N]."""
        batch = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        ).to(self.model.device)
        logits = self.model(**batch).logits[:, self.labels].float()
        result: npt.NDArray[np.float32] = logits.softmax(1)[:, 1].cpu().numpy()
        return result


def load_hub_classifier(name: str) -> HubClassifier:
    """Load ``hub:<repo id or folder>``.

    Raises:
        SettingError: it cannot be had, or its labels do not say which one is positive.
    """
    source, revision = _resolve(name)
    transformers_logging.disable_progress_bar()
    with _loading(name):
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
    """Check that `load_hub_classifier` would find `name` and know its labels, without loading weights.

    Raises:
        SettingError: as `load_hub_classifier`.
    """
    source, revision = _resolve(name)
    with _loading(name):
        config = AutoConfig.from_pretrained(source, revision=revision)
    _labels(name, config)


def hub_scores(texts: Mapping[str, str], own: ReviewSentimentsSettings, use_gpu: bool) -> Iterator[dict[str, float]]:
    """Probability of positive by hash of the text, batch by batch.

    Args:
        texts: by hash.

    Raises:
        SettingError: as `load_hub_classifier`.
    """
    require_hub_classifier(own.classifier)
    for batch in texts_through(texts, _Judge, (own.classifier, use_gpu), own.copies, own.batch_size, use_gpu):
        yield dict(zip(batch["content_hash"].to_pylist(), batch["score"].to_pylist(), strict=True))


class _Judge:
    """The actor that holds a classifier."""

    def __init__(self, name: str, use_gpu: bool) -> None:
        self._classifier = load_hub_classifier(name)
        if use_gpu:
            self._classifier.model.to("cuda")  # type: ignore[arg-type]

    def __call__(self, batch: pa.Table) -> pa.Table:
        scores = self._classifier.scores(batch["text"].to_pylist())
        return pa.table({"content_hash": batch["content_hash"], "score": pa.array(scores)})


def _labels(name: str, config: "PretrainedConfig") -> tuple[int, int]:
    """Numbers of the positive and the negative label."""
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


def _resolve(name: str) -> tuple[str, str | None]:
    source, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    return source, revision or None


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn what transformers raises when files cannot be had into one clear sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{STAGE}.classifier={name!r} could not be loaded ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Check the name, that the model hub can be reached from here (HF_ENDPOINT, HF_HUB_OFFLINE, a proxy) or "
            f"that HF_HOME holds a copy; 'hub:<folder>' loads a local folder and {PROBE!r} needs no network"
        ) from error
