"""The language model that is tuned: loaded from a folder or a hub, or a tiny one made here."""

from collections.abc import Sequence
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

from infra.errors import SettingError
from ray_jobs.denoiser.settings import SECTION, TINY, DenoiserSettings
from ray_jobs.encoders.settings import HUB_PREFIX
from schemas.artifact_seal import check_folder, seal_folder

_START, _END, _PAD = "<s>", "</s>", "<pad>"


def resolve(base: str) -> tuple[str, str | None]:
    """Repository or folder, and revision, of ``hub:<...>``.

    Raises:
        SettingError: `base` is neither that nor ``tiny``.
    """
    if not base.startswith(HUB_PREFIX):
        raise SettingError(
            f"{SECTION}.base is {base!r}; use {TINY!r}, 'hub:<repo id>' or 'hub:<folder>', e.g. "
            "'hub:meta-llama/Meta-Llama-3-8B'"
        )
    source, _, revision = base.removeprefix(HUB_PREFIX).partition("@")
    return source, revision or None


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base (``hub:<...>``).

    Raises:
        SettingError: it cannot be had.
        DataError: it is a folder of `save_base`, and damaged.
    """
    source, revision = resolve(base)
    _check(source)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error
    return tokenizer


def load_base(base: str, dtype: str = "float32") -> PreTrainedModel:
    """The causal language model of a base (``hub:<...>``), in evaluation mode.

    Raises:
        SettingError: it cannot be had.
        DataError: it is a folder of `save_base`, and damaged.
    """
    source, revision = resolve(base)
    _check(source)
    transformers_logging.disable_progress_bar()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=getattr(torch, dtype), use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error
    return model.eval()


def _check(source: str) -> None:
    """Refuse a folder that `save_base` wrote and that is damaged since."""
    if Path(source).is_dir():
        check_folder(Path(source), "bring the base model back from its MLflow run, or make it again (--generation)")


def _cannot_load(base: str, error: Exception) -> SettingError:
    return SettingError(
        f"the base model {SECTION}.base={base!r} could not be loaded ({type(error).__name__}: "
        f"{str(error).splitlines()[0]}). Check the name, that the model hub can be reached from here (HF_ENDPOINT, "
        "HF_HUB_OFFLINE, HF_TOKEN for gated models, a proxy) or that HF_HOME holds a copy; "
        f"{SECTION}.base='hub:<folder>' loads a local folder and {SECTION}.base={TINY!r} needs no network"
    )


def tiny_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens, learnt from `texts`; it can write any text."""
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
    """A Llama-style model small enough for one processor, with the layer names of its large relatives."""
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
    """An untrained model of that shape, its weights fixed by `seed`."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def save_base(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write model and tokenizer into `folder`, from which ``hub:<folder>`` loads them."""
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    seal_folder(folder)
