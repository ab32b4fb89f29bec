"""Recommender recipes: one file per method, its settings where no engine is loaded, one line in `schemas.recipes`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from infra.errors import SettingError
from schemas.recipes import RECOMMENDERS, Recipe

if TYPE_CHECKING:
    from ray_jobs.recommenders.base import Recommender
    from ray_jobs.recommenders.settings import RecipeSettings


def recipe_class(name: str) -> "type[Recommender]":
    """The class of a recipe.

    Raises:
        SettingError: no recipe has that name; the message lists those that exist.
    """
    found: type[Recommender] = _at(_known(name).implementation)
    return found


def settings_class(name: str) -> "type[RecipeSettings]":
    """The class of a recipe's settings; no engine is loaded.

    Raises:
        SettingError: as `recipe_class`.
    """
    found: type[RecipeSettings] = _at(_known(name).settings)
    return found


def _known(name: str) -> Recipe:
    if name not in RECOMMENDERS:
        raise SettingError(f"recommender recipe {name!r} is none of {', '.join(sorted(RECOMMENDERS))}")
    return RECOMMENDERS[name]


def _at(address: str) -> Any:
    module, _, attribute = address.partition(":")
    return getattr(import_module(f"ray_jobs.recipes.{module}"), attribute)
