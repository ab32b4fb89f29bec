"""The base model: loaded from a folder or a hub, or a tiny one that is trained here."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from infra import storage
from infra.errors import SettingError
from ray_jobs.denoiser.settings import SECTION, TINY, DenoiserSettings
from ray_jobs.encoders import hub
from ray_jobs.encoders.settings import HUB_PREFIX
from schemas.artifact_seal import check_folder, seal_folder

_REMEDY = "bring the base model back from its MLflow run, or make it again (--generation)"
_START, _END, _PAD = "<s>", "</s>", "<pad>"


@contextmanager
def resolved(base: str) -> Iterator[tuple[str, str | None]]:
    """Repository or folder on this machine, and revision, of ``hub:<...>``.

    Raises:
        SettingError: `base` is neither that nor ``tiny``.
        DataError: it is a folder of `save_base`, and damaged.
    """
    if not base.startswith(HUB_PREFIX):
        raise SettingError(
            f"{SECTION}.base is {base!r}; use {TINY!r}, 'hub:<repo id>' or 'hub:<folder>', e.g. "
            "'hub:meta-llama/Meta-Llama-3-8B'"
        )
    if "://" not in base:
        source, revision = hub.resolve(base)
        if Path(source).is_dir():
            check_folder(Path(source), _REMEDY)
        yield source, revision
        return
    with storage.local_copy(base.removeprefix(HUB_PREFIX)) as folder:
        check_folder(folder, _REMEDY)
        yield str(folder), None


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base (``hub:<...>``).

    Raises:
        SettingError: it cannot be loaded.
        DataError: as `resolved`.
    """
    with resolved(base) as (source, revision), _loading(base):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, revision=revision)
    return tokenizer


def load_base(base: str, dtype: str = "float32") -> PreTrainedModel:
    """The causal language model of a base (``hub:<...>``), in evaluation mode.

    Raises:
        SettingError: it cannot be loaded.
        DataError: as `resolved`.
    """
    transformers_logging.disable_progress_bar()
    with resolved(base) as (source, revision), _loading(base):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=getattr(torch, dtype), use_safetensors=True
        )
    return model.eval()


def _loading(base: str) -> AbstractContextManager[None]:
    return hub.loading(f"the base model {SECTION}.base={base!r}", TINY)


def tiny_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens, trained on `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_START, _END, _PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_START, eos_token=_END, pad_token=_PAD)


def tiny_config(tokenizer: PreTrainedTokenizerBase, settings: DenoiserSettings) -> LlamaConfig:
    """A Llama-style model for one CPU, with the layer names of large ones."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.tiny_width,
        intermediate_size=3 * settings.tiny_width,
        num_hidden_layers=settings.tiny_layers,
        num_attention_heads=settings.tiny_heads,
        max_position_embeddings=settings.max_tokens,
        tie_word_embeddings=True,
        initializer_range=settings.tiny_width**-0.5 / 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_model(config: LlamaConfig, seed: int) -> PreTrainedModel:
    """An untrained model; `seed` fixes its weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def save_base(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write model and tokenizer into `folder`, for ``hub:<folder>``."""
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    seal_folder(folder)
