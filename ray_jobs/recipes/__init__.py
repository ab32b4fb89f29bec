"""Recipes by name, from the index in `schemas.recipes`: a module per method, and settings that load no engine."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, overload

from schemas.recipes import Kind, find

if TYPE_CHECKING:
    from ray_jobs.recommenders.base import Recommender
    from ray_jobs.tokenizers.base import Tokenizer


@overload
def recipe_class(name: str, kind: Literal["recommender"] = ...) -> "type[Recommender]": ...


@overload
def recipe_class(name: str, kind: Literal["tokenizer"]) -> "type[Tokenizer]": ...


def recipe_class(name: str, kind: Kind = "recommender") -> Any:
    """The class of a recipe.

    Raises:
        SettingError: there is no such recipe; the message lists those of that kind.
    """
    return _at(find(name, kind).implementation)


def settings_class(name: str, kind: Kind = "recommender") -> type[Any]:
    """The class of a recipe's settings; loads no engine.

    Raises:
        SettingError: as `recipe_class`.
    """
    found: type[Any] = _at(find(name, kind).settings)
    return found


def _at(address: str) -> Any:
    module, _, attribute = address.partition(":")
    return getattr(import_module(f"ray_jobs.recipes.{module}"), attribute)
