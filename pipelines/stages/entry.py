"""What the stages of Spark share: settings are checked before an engine is loaded."""

from importlib import import_module

from infra.settings import load_settings
from pipelines.later_days import with_later_days
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.stage_runner import checked
from schemas.stages import STAGES


def run(request: StageRequest) -> StageReport:
    """Check the settings of the request's stage, then do ``work`` of its entry point or run ``pipelines.<stage>``.

    A stage with a state per day runs only where something changed, see `pipelines.finished`.
    """
    checked(request)
    own = getattr(import_module(STAGES[request.stage].module), "work", None)
    return with_later_days(request.stage, own or _work)(request)


def _work(request: StageRequest) -> StageReport:
    if not STAGES[request.stage].snapshot:
        return _made(request)
    from pipelines.finished import FinishedDay

    return FinishedDay(load_settings(), request).report_or(_made)


def _made(request: StageRequest) -> StageReport:
    made: StageReport = import_module(f"pipelines.{request.stage}").run(request)
    return made
