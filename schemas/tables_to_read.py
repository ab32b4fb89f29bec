"""Which of the tables that a stage declares it reads in a run: a function of its recipe and settings."""

from collections.abc import Mapping
from typing import Any

from infra.settings import Settings
from schemas.recipes import RECIPES
from schemas.sections import settings_of
from schemas.stages import RECIPE, STAGES, Stage


def tables_to_read(stage: Stage, settings: Settings, overrides: Mapping[str, Any], recipe: str = "") -> tuple[str, ...]:
    """Names of the tables that `stage` reads, in the order of `Stage.reads`.

    Args:
        overrides: the run's settings by dotted name.
        recipe: by default the stage's default recipe.

    Raises:
        SettingError: a setting is unknown or has an invalid value.
    """

    def holds(condition: str, table: str) -> bool:
        if condition == RECIPE:
            name = recipe or stage.default_recipe
            return table in RECIPES[name].tables(vars(settings_of(name, settings, overrides)))
        section, _, setting = condition.partition(".")
        return getattr(settings_of(section, settings, overrides), setting) not in (False, "none")

    unread = {table for table, known in stage.reads_if.items() if not any(holds(one, table) for one in known)}
    return tuple(table for table in stage.reads if table not in unread)


def output_read(stage: Stage, read: tuple[str, ...], output: str) -> bool:
    """Whether an output ``<task>.<output>`` is passed to `stage`.

    That of a stage whose tables it could read is not if it reads none of them.

    Args:
        read: see `tables_to_read`.
    """
    maker = STAGES.get(output.partition(".")[0])
    known: set[str] = set() if maker is None else {*maker.writes} & {*stage.reads}
    return stage.takes(output) and (not known or bool(known & {*read}))
