"""The settings of a recipe in a run; not part of the loader, which is packed into registered models."""

from typing import Any

from infra.settings import Given, Settings, checked, overrides_for
from ray_jobs.recipes import settings_class
from schemas.recipes import Kind, given_settings


def recipe_settings(name: str, settings: Settings, given: Given, kind: Kind = "recommender") -> Any:
    """The settings of a recipe: the preset, overridden by the profile, overridden by the run; loads no engine.

    Raises:
        SettingError: there is no such recipe or preset, or a setting is unknown or has an invalid value.
    """
    own = settings_class(name, kind)
    return checked(own, given_settings(name, settings.stages.get(name, {}), overrides_for(name, given)))
