"""Tokenizer recipes, vectors of items to code tuples.

One file per method, its settings where no engine is loaded, one line in `schemas.recipes`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from infra.errors import SettingError
from schemas.recipes import TOKENIZERS, Recipe

if TYPE_CHECKING:
    from ray_jobs.tokenizers.base import Tokenizer


def tokenizer_class(name: str) -> "type[Tokenizer]":
    """The tokenizer recipe called `name`.

    Raises:
        SettingError: there is none; the message lists those there are.
    """
    found: type[Tokenizer] = _at(_known(name).implementation)
    return found


def settings_class(name: str) -> type[Any]:
    """The class of the settings of the recipe called `name`; no engine is loaded.

    Raises:
        SettingError: as `tokenizer_class`.
    """
    found: type[Any] = _at(_known(name).settings)
    return found


def _known(name: str) -> Recipe:
    if name not in TOKENIZERS:
        raise SettingError(f"no tokenizer {name!r}; there are: {', '.join(sorted(TOKENIZERS))}")
    return TOKENIZERS[name]


def _at(address: str) -> Any:
    module, _, attribute = address.partition(":")
    return getattr(import_module(f"ray_jobs.recipes.{module}"), attribute)
