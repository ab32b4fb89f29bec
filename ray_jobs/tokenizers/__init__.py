"""Tokenizer recipes, vectors of items to code tuples: one file per method, one line in `schemas.recipes`."""

from importlib import import_module
from typing import TYPE_CHECKING

from infra.errors import SettingError
from schemas.recipes import TOKENIZERS

if TYPE_CHECKING:
    from ray_jobs.tokenizers.base import Tokenizer


def tokenizer_class(name: str) -> "type[Tokenizer]":
    """The tokenizer recipe called `name`.

    Raises:
        SettingError: there is none; the message lists those there are.
    """
    if name not in TOKENIZERS:
        raise SettingError(f"no tokenizer {name!r}; there are: {', '.join(sorted(TOKENIZERS))}")
    module, _, attribute = TOKENIZERS[name].implementation.partition(":")
    found: type[Tokenizer] = getattr(import_module(f"ray_jobs.tokenizers.{module}"), attribute)
    return found
