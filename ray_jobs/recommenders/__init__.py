"""Recommender recipes: one file per method, one line here."""

from importlib import import_module
from typing import TYPE_CHECKING

from infra.errors import SettingError

if TYPE_CHECKING:
    from ray_jobs.recommenders.base import Recommender

RECIPES: dict[str, str] = {
    "popularity": "ray_jobs.recommenders.popularity:Popularity",
    "sasrec": "ray_jobs.recommenders.sasrec:SASRec",
    "tiger": "ray_jobs.recommenders.tiger:Tiger",
    "mendertok": "ray_jobs.recommenders.mendertok:MenderTok",
}


def recipe_class(name: str) -> "type[Recommender]":
    """The class of a recipe.

    Raises:
        SettingError: no recipe has that name; the message lists those that exist.
    """
    if name not in RECIPES:
        raise SettingError(f"recommender recipe {name!r} is none of {', '.join(sorted(RECIPES))}")
    module, _, attribute = RECIPES[name].partition(":")
    found: type[Recommender] = getattr(import_module(module), attribute)
    return found
