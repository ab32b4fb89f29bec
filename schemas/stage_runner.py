"""Runs a stage: parses its command line, checks its settings, does the work, measures the time, writes the report."""

import argparse
import datetime as dt
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

from infra import metrics, traces
from infra.errors import SettingError, UserError
from infra.progress import LOGGER, speaking_for
from infra.settings import Settings, load_settings
from schemas.addresses import write_text
from schemas.errors import bounded
from schemas.handoff import StageReport, error_uri, write_report
from schemas.recipes import Kind, find
from schemas.sections import SECTIONS, settings_of
from schemas.stage_request import StageRequest
from schemas.stages import RECIPE, STAGES

DISK_FULL = "No space left on device"
TASK_STARTED = "PENCHANT_TASK_STARTED"
"""Environment variable: start of the submitting task, in seconds since 1970."""
_ready_at: list[float] = []


def engine_is_ready() -> None:
    """Start the time of the stage's own work: the engine is ready. Only the first call counts."""
    if not _ready_at:
        _ready_at.append(time.time())


def checked(request: StageRequest) -> Settings:
    """The settings, after a check of the sections that the request's stage declares of its own room.

    What else its entry point checks before an engine is loaded is its function ``check``, if it has one.

    Raises:
        UserError: of whatever is wrong.
    """
    settings, stage = load_settings(), STAGES[request.stage]
    room = stage.module.partition(".")[0]
    for section in stage.sections:
        if section == RECIPE:
            section = request.recipe or stage.default_recipe
            find(section, cast(Kind, stage.recipe))
        if SECTIONS.get(section, room).startswith(room):
            settings_of(section, settings, request)
    check = getattr(import_module(stage.module), "check", None)
    if check is not None:
        check(settings, request)
    return settings


def run_named(engine: str, work: Callable[[StageRequest], StageReport], description: str, words: Sequence[str]) -> None:
    """Run the stage of an engine that `words` names first, with the other words as its arguments; see `run_stage`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stage",
        choices=sorted(name for name, one in STAGES.items() if one.engine == engine),
        help="and after it the stage's own arguments; STAGE --help lists them",
    )
    run_stage(parser.parse_args(words[:1]).stage, work, words[1:])


def run_stage(
    stage: str, work: Callable[[StageRequest], StageReport], argv: Sequence[str] | None = None
) -> StageReport:
    """Run `work` for the request on the command line and write its report.

    A `UserError` (bad data, bad settings) ends the process with status 2 and one message, which is also written beside
    the report for whoever submitted the stage. Anything else is a bug and keeps its traceback. A full disk gets its
    traceback and a message, and status 1, because a retry may succeed.

    The time of the stage's own work starts when `work` calls `engine_is_ready`, else with the call of `work`.
    """
    with speaking_for(stage):
        return _run(stage, work, argv)


def _run(stage: str, work: Callable[[StageRequest], StageReport], argv: Sequence[str] | None) -> StageReport:
    called = time.time()
    _ready_at.clear()
    request = None
    submitted = float(os.environ[TASK_STARTED]) if TASK_STARTED in os.environ else None
    try:
        description = import_module(STAGES[stage].module).__doc__ or ""
        request = StageRequest.parse(stage, description, argv)
        with _traced(request, called if submitted is None else submitted):
            report = work(request)
    except UserError as error:
        _push_failure(request, "user_error")
        message = bounded(f"{stage}: {type(error).__name__}: {error}")
        print(message, file=sys.stderr, flush=True)  # noqa: T201
        if request is not None and request.report_uri:
            write_text(error_uri(request.report_uri), message)
        raise SystemExit(2) from error
    except Exception as error:
        _push_failure(request, "error")
        if DISK_FULL not in str(error):
            raise
        traceback.print_exc()
        message = f"{stage}: {DISK_FULL}. Tables are unchanged: free space, and run the stage again"
        print(message, file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(1) from error
    began = _ready_at[0] if _ready_at else called
    waited = None if submitted is None else began - submitted
    report = replace(
        report,
        seconds=round(time.time() - began, 3),
        started_after=None if waited is None else round(waited, 3),
    )
    if request.report_uri:
        write_report(request.report_uri, report)
    ended = _end(request, report.status, seconds=report.seconds, start_seconds=report.started_after)
    metrics.push(replace(ended, counts=report.counts), load_settings().metrics)
    counts = ", ".join(f"{name} {value}" for name, value in report.counts.items())
    start = "" if report.started_after is None else f", started after {report.started_after:.1f} s"
    LOGGER.info("%s in %.1f s%s; %s", report.status, report.seconds, start, counts)
    return report


@contextmanager
def _traced(request: StageRequest, began: float) -> Iterator[None]:
    """A span of the stage, with one inside for the time until its engine was ready."""
    facts = {"dataset": request.dataset, "partition": request.partition, "recipe": request.recipe, "dag": request.dag}
    facts["identity"] = request.identity().key()
    service = f"penchant-{STAGES[request.stage].engine}"
    with traces.root(f"stage {request.stage}", service=service, facts=facts, began=began):
        try:
            yield
        finally:
            if _ready_at:
                traces.add("start of the engine", began, _ready_at[0])


def _end(request: StageRequest, status: str, **more: Any) -> metrics.StageEnd:
    day = dt.datetime.combine(request.partition_date(), dt.time(), dt.UTC).timestamp()
    return metrics.StageEnd(
        stage=request.stage,
        dataset=request.dataset,
        recipe=request.recipe,
        status=status,
        at=time.time(),
        day=day,
        **more,
    )


def _push_failure(request: StageRequest | None, status: str) -> None:
    if request is not None:
        with suppress(SettingError):
            metrics.push(_end(request, status, failed=True), load_settings().metrics)
