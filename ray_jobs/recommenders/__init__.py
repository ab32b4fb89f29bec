"""Recommender recipes: one file per method, one line in `schemas.recipes`."""

from importlib import import_module
from typing import TYPE_CHECKING

from infra.errors import SettingError
from schemas.recipes import RECOMMENDERS

if TYPE_CHECKING:
    from ray_jobs.recommenders.base import Recommender


def recipe_class(name: str) -> "type[Recommender]":
    """The class of a recipe.

    Raises:
        SettingError: no recipe has that name; the message lists those that exist.
    """
    if name not in RECOMMENDERS:
        raise SettingError(f"recommender recipe {name!r} is none of {', '.join(sorted(RECOMMENDERS))}")
    module, _, attribute = RECOMMENDERS[name].implementation.partition(":")
    found: type[Recommender] = getattr(import_module(f"ray_jobs.recommenders.{module}"), attribute)
    return found
