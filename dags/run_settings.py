"""The settings of a run, as the classes that declare them read them."""

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from infra.settings import Settings, checked, stage_settings
from schemas.recipes import RECIPES, given_settings
from schemas.sections import known

ROOMS = ("pipelines", "ray_jobs", "schemas", "infra")


def settings_of(section: str, settings: Settings, overrides: Mapping[str, Any]) -> Any:
    """The settings of a section under a run's overrides; imports the module that declares them, which loads no engine.

    Raises:
        SettingError: a setting is unknown or has an invalid value.
        ModuleNotFoundError: the module needs a package that is only installed where the stage runs.
    """
    module, _, name = known()[section].partition(":")
    kind = getattr(import_module(module), name)
    if section in RECIPES:
        return checked(kind, given_settings(section, settings.stages.get(section, {}), overrides))
    return stage_settings(kind, settings, overrides)


def refuse_wrong(context: Mapping[str, Any], settings: Settings, overrides: Mapping[str, Any]) -> None:
    """Refuse settings with which a stage of the run would fail.

    Raises:
        SettingError: see `settings_of`.
    """
    stages = [task.stage for task in getattr(context.get("dag"), "tasks", ()) if hasattr(task, "stage")]
    read = (section for stage in stages for section in stage.row.sections_of(stage.recipe_of(context["params"])))
    for section in dict.fromkeys(read):
        try:
            settings_of(section, settings, overrides)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ROOMS:
                raise
            logging.getLogger(__name__).info("%s is checked by its stage: %s", section, error)
