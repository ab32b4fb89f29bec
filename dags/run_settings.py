"""The check of a run's settings."""

import logging
from collections.abc import Mapping
from typing import Any

from infra.settings import Settings, settings_of

ROOMS = ("pipelines", "ray_jobs", "schemas", "infra")


def refuse_wrong(context: Mapping[str, Any], settings: Settings, overrides: Mapping[str, Any]) -> None:
    """Refuse settings with which a stage of the run would fail.

    Raises:
        SettingError: see `infra.settings.settings_of`.
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
