"""The settings of a recipe as a run gives them; apart from the loader, which registered models carry along."""

from typing import Any

from infra.settings import Given, Settings, checked, overrides_for
from ray_jobs.recipes import settings_class
from schemas.recipes import Kind, given_settings


def recipe_settings(name: str, settings: Settings, given: Given, kind: Kind = "recommender") -> Any:
    """The settings of a recipe: a run's overrides over the profile's, and both over the preset; no engine is loaded.

    Raises:
        SettingError: no recipe of that kind or preset has the name, or a setting is unknown or has a wrong value.
    """
    own = settings_class(name, kind)
    return checked(own, given_settings(name, settings.stages.get(name, {}), overrides_for(name, given)))
