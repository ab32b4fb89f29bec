"""The sections of settings with the classes that declare them."""

from importlib import import_module

from pydantic import BaseModel

from infra.settings import Settings
from schemas.recipes import RECIPES
from schemas.sections import SECTIONS, known


def kinds() -> dict[str, tuple[type, ...]]:
    """Classes by section, of the profile, stages and recipes; profile and stages may share a name."""
    found: dict[str, tuple[type, ...]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = (field.annotation,)
    for name, address in SECTIONS.items():
        found[name] = (*found.get(name, ()), at(address))
    return found | {name: (recipe_settings(name),) for name in RECIPES}


def recipe_settings(name: str) -> type:
    """The settings class of a recipe."""
    return at(known()[name])


def at(address: str) -> type:
    """The class at ``module:class``."""
    module, _, attribute = address.partition(":")
    found: type = getattr(import_module(module), attribute)
    return found
