"""Which of the tables that a stage declares it reads in a run: a function of its recipe and settings."""

from collections.abc import Callable
from typing import Any

from schemas.recipes import RECIPES
from schemas.stages import STAGES, Stage

_BY_RECIPE = frozenset({"preferences", "semantic_ids", "preference_benchmark"})
"""Tables that training reads only if the recipe or the steering layer needs them."""


def tables_to_read(stage: Stage, of: Callable[[str], Any], recipe: str = "") -> tuple[str, ...]:
    """Names of the tables that `stage` reads, in the order of `Stage.reads`.

    Args:
        of: the run's settings of a section, see `infra.settings.settings_of`.
        recipe: by default the stage's default recipe.

    Raises:
        SettingError: a setting is unknown or has an invalid value.
    """
    unread: set[str] = set()
    if "denoised_sequences" in stage.reads and of("training_data").corrections == "none":
        unread.add("denoised_sequences")
    if stage.name == "train":
        name = recipe or stage.default_recipe
        unread |= _BY_RECIPE - RECIPES[name].tables(vars(of(name)))
        if of("steering").enabled:
            unread.discard("preferences")
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
