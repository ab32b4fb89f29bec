"""What the stages of Ray share: settings are checked before an engine is loaded."""

import argparse
import datetime as dt
from collections.abc import Callable
from importlib import import_module

from schemas.handoff import StageReport
from schemas.names import DATASET, DAY
from schemas.stage_request import StageRequest
from schemas.stage_runner import checked, engine_is_ready
from schemas.stages import STAGES


def run(request: StageRequest) -> StageReport:
    """Check the settings of the request's stage, then run it by ``ray_jobs.<stage>``.

    A request by hand gets the newest versions of its tables first, see `ray_jobs.data.recorded.pinned`.
    """
    settings = checked(request)
    work: Callable[[StageRequest], StageReport] = import_module(f"ray_jobs.{request.stage}").run
    from ray_jobs.data.recorded import pinned

    engine_is_ready()
    return work(pinned(settings, request))


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
