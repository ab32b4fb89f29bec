"""The sections of settings with the classes that declare them."""

from pydantic import BaseModel

from infra.settings import Settings
from schemas.recipes import RECIPES
from schemas.sections import SECTIONS, class_of


def kinds() -> dict[str, tuple[type, ...]]:
    """Classes by section, of the profile, stages and recipes; profile and stages may share a name."""
    found: dict[str, tuple[type, ...]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = (field.annotation,)
    return found | {name: (*found.get(name, ()), class_of(name)) for name in (*SECTIONS, *RECIPES)}
