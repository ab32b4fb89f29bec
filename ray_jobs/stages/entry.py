"""The entry point that the stages of Ray share: settings are checked before an engine is loaded."""

import argparse
import datetime as dt
from collections.abc import Callable
from importlib import import_module
from typing import cast

from infra.settings import Settings, load_settings
from schemas.handoff import StageReport
from schemas.names import DATASET, DAY
from schemas.recipes import Kind, find
from schemas.sections import settings_of
from schemas.stage_request import StageRequest
from schemas.stage_runner import engine_is_ready
from schemas.stages import RECIPE, STAGES

Run = Callable[[StageRequest], StageReport]


def checked_run(stage: str, check: Callable[[Settings, StageRequest], object] | None = None) -> Run:
    """The function that runs a stage: it checks the sections that the stage declares, then calls ``ray_jobs.<stage>``.

    A request by hand gets the newest versions of its tables first, see `ray_jobs.data.recorded.pinned`.

    Args:
        stage: name in `schemas.stages`.
        check: what else is checked before an engine is loaded.
    """
    declared = STAGES[stage]

    def run(request: StageRequest) -> StageReport:
        settings = load_settings()
        for section in declared.sections:
            if section == RECIPE:
                section = recipe_of(request)
                find(section, cast(Kind, declared.recipe))
            settings_of(section, settings, request)
        if check is not None:
            check(settings, request)
        work: Run = import_module(f"ray_jobs.{stage}").run
        from ray_jobs.data.recorded import pinned

        engine_is_ready()
        return work(pinned(settings, request))

    return run


def recipe_of(request: StageRequest) -> str:
    """The recipe of a request, or the default recipe of its stage."""
    return request.recipe or STAGES[request.stage].default_recipe


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments of every command that runs a stage for a person: the data set and the day."""
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of a registered data set")
    today = str(dt.datetime.now(dt.UTC).date())
    parser.add_argument("--partition", type=DAY, default=today, help="day of the report, today by default")
    return parser
