"""A tiny world for the denoiser: each user keeps to one of two families of made-up names."""

from pathlib import Path

import numpy as np
from peft import PeftModel

from ray_jobs.data.histories import Histories
from ray_jobs.denoiser.base import load_base, tiny_config, tiny_model, tiny_tokenizer
from ray_jobs.denoiser.settings import DenoiserSettings
from ray_jobs.denoiser.tuning_data import ANSWER_MIDDLE, ANSWER_OPEN, LIST_OPEN, Writer
from schemas.artifact_seal import check_folder

PER_FAMILY = 10
TITLES = tuple(f"{stem}{'aeiou'[n % 5]}{'bd'[n // 5]}{'aeiou'[n % 5]}" for stem in ("Gui", "Ket") for n in range(10))
SMALL = DenoiserSettings(
    windows=800,
    heldout_share=0.25,
    tiny_width=64,
    tiny_layers=2,
    tiny_vocabulary=900,
    tiny_epochs=4,
    tiny_batch_size=16,
    tiny_learning_rate=8e-3,
    epochs=8,
    batch_size=16,
    learning_rate=1e-2,
    warmup_steps=10,
)


def family_histories(users: int = 200, seed: int = 0) -> Histories:
    """Six to nine different items of one family in random order; the last two are the held-out targets."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(users):
        family = int(rng.integers(2))
        items.append(family * PER_FAMILY + rng.permutation(PER_FAMILY)[: int(rng.integers(6, 10))])
    lengths = np.array([len(history) for history in items])
    return Histories(
        user_ids=tuple(f"U{user}" for user in range(users)),
        items=tuple(items),
        valid_position=lengths - 2,
        test_position=lengths - 1,
        preferences=tuple({} for _ in items),
    )


def small_writer(settings: DenoiserSettings = SMALL) -> Writer:
    texts = [LIST_OPEN, ANSWER_OPEN, ANSWER_MIDDLE, *TITLES]
    return Writer(tiny_tokenizer(texts, settings.tiny_vocabulary), TITLES, settings)


def untrained(writer: Writer):
    return tiny_model(tiny_config(writer.tokenizer, writer.settings), writer.settings.seed)


def load_adapter(base, folder):
    """The base with the adapter in `folder`, which is checked first."""
    check_folder(Path(folder), "tune it again")
    return PeftModel.from_pretrained(load_base(base), folder).eval()
