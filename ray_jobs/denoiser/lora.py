"""Low-rank adapters (Hu et al., arXiv 2106.09685) on a frozen base, in PEFT's format."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from infra.errors import SettingError
from ray_jobs.denoiser.settings import SECTION, DenoiserSettings
from schemas.artifact_seal import seal_folder


def add_adapter(base: PreTrainedModel, settings: DenoiserSettings) -> PeftModel:
    """`base` with a new adapter, the only trainable part, which initially changes nothing; the seed fixes its weights.

    Raises:
        SettingError: the base has no layers named in ``target_modules``.
    """
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(base, config)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)})
        raise SettingError(
            f"{SECTION}.target_modules is {list(settings.target_modules)}, and the base {settings.base!r} has no such "
            f"layers ({error}); its linear layers are called {', '.join(linear)}"
        ) from error
    assert isinstance(model, PeftModel)
    return model


def save_adapter(folder: Path, model: PeftModel) -> None:
    """Write the adapter in PEFT's format, which vLLM reads with ``--lora-modules``."""
    model.save_pretrained(str(folder), save_embedding_layers=False)
    seal_folder(folder)
