"""Run one stage by hand: ``penchant run STAGE --dataset shop --partition 2026-01-31 --latest``.

With ``--latest`` it reads the tables and outputs of the newest finished run of that data set and day. Its own results
are the newest from then on, for further stages and for DAGs that start from a day's tables.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from infra import storage
from infra.commands.terminal import Parser, say
from infra.errors import UserError
from infra.suggestions import unknown

if TYPE_CHECKING:
    from infra.settings import Settings
    from schemas.handoff import Handoff, StageReport
    from schemas.stage_request import StageRequest
    from schemas.stages import Stage

RECOMMENDER_TASK = "train_recommender"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a stage; status 2 after one line if something requested does not exist."""
    parser = _parser()
    given = parser.parse_args(argv)
    from schemas.stages import STAGES

    if given.stage not in STAGES:
        parser.error(unknown("stage", given.stage, STAGES, "penchant stages"))
    try:
        request = _request(given, STAGES[given.stage])
    except UserError as error:
        parser.error(str(error))
    if given.show:
        say([json.dumps(shown(request), indent=1)])
        return 0
    report = _start(STAGES[given.stage], request)
    _leave(given.task or (RECOMMENDER_TASK if given.stage == "train" else given.stage), request, report)
    return 0


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", metavar="STAGE", help="a stage; `penchant stages` lists them")
    parser.add_argument("--dataset", required=True, help="name of a registered data set")
    parser.add_argument(
        "--partition", default="", help="the day; with --latest by default the newest with a finished run"
    )
    parser.add_argument("--latest", action="store_true", help="start from the newest finished run of the day")
    parser.add_argument("--recipe", default="", help="the recipe of a stage that has several, such as mendertok")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.NAME=VALUE",
        help="a setting, such as mendertok.epochs=3; may be given several times",
    )
    parser.add_argument("--generation", type=int, default=0, help="raise it to repeat finished work")
    parser.add_argument(
        "--task",
        default="",
        help="name under which later stages find its results; by default its own, for training train_recommender",
    )
    parser.add_argument("--show", action="store_true", help="print the request and end")
    return parser


def _request(given: argparse.Namespace, stage: "Stage") -> "StageRequest":
    """The request to the stage.

    Raises:
        UserError: a setting, the recipe, the day or a finished run does not exist.
    """
    from infra.settings import load_settings
    from schemas.stage_request import StageRequest

    settings = load_settings()
    _require_recipe(stage, given.recipe)
    partition = given.partition or _newest_day(settings, given.dataset, given.latest)
    request = StageRequest(
        stage=stage.name,
        dataset=given.dataset,
        partition=partition,
        recipe=given.recipe,
        generation=given.generation,
        overrides=_overrides(given.set, stage.sections_of(given.recipe)),
        profile_hash=stage.profile_hash(settings.stages, settings.llm.model, given.recipe),
    )
    if given.latest:
        request = from_latest(request, stage, settings)
    return replace(request, report_uri=settings.report_uri(request.dataset, partition, request.identity().key()))


def _require_recipe(stage: "Stage", name: str) -> None:
    from schemas.recipes import RECIPES

    known = [one for one, recipe in RECIPES.items() if recipe.kind == stage.recipe]
    if name and not known:
        raise UserError(f"--recipe {name}: the stage {stage.name} has no recipes")
    if name and name not in known:
        raise UserError(unknown(stage.recipe, name, known, "penchant recipes"))


def _overrides(pairs: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        section, dot, setting = name.partition(".")
        if not equals or not dot or not setting:
            raise UserError(f"--set {pair[:80]!r}: write SECTION.NAME=VALUE, such as mendertok.epochs=3")
        if section not in sections:
            raise UserError(f"--set {name}: {unknown('section that the stage reads', section, sections)}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _newest_day(settings: "Settings", dataset: str, latest: bool) -> str:
    days = _days(settings, dataset) if latest else []
    if not days:
        why = f"no day of data set {dataset!r} has a finished run" if latest else "--partition is needed"
        raise UserError(f"{why}: give the day, such as --partition 2026-01-31")
    return days[-1]


def _days(settings: "Settings", dataset: str) -> list[str]:
    """Days with finished runs, the newest last."""
    reports = (found.name.split("/") for found in storage.below(settings.shared("stages", dataset)))
    return sorted({parts[0] for parts in reports if len(parts) == 3 and parts[1] == "latest"})


def from_latest(request: "StageRequest", stage: "Stage", settings: "Settings") -> "StageRequest":
    """`request` with the tables and outputs that the stage reads, as reported by the newest runs.

    Raises:
        UserError: nothing was run for the day.
    """
    from infra.home import here
    from schemas.handoff import read_report
    from schemas.tables_to_read import output_read, tables_to_read

    read = tables_to_read(stage, settings, request.overrides, request.recipe)
    folder = storage.parent_of(settings.latest_report_uri(request.dataset, request.partition, "task"))
    found = sorted(storage.below(folder), key=lambda one: one.modified)
    if not found:
        days = ", ".join(_days(settings, request.dataset)[-3:]) or "none"
        raise UserError(
            f"data set {request.dataset!r} has no finished stage on {request.partition} (days that have one: {days})"
        )
    inputs: dict[str, Handoff] = {}
    upstream: dict[str, str] = {}
    for name in (one.name for one in found if one.name.endswith(".json")):
        report = read_report(storage.join(folder, name))
        assert report is not None
        inputs |= {
            table: replace(handoff, uri=here(handoff.uri, settings.home))
            for table, handoff in report.handoffs.items()
            if table in read
        }
        # Two tasks may share a stage (`append_items` makes semantic ids), so outputs count under both names.
        for task in dict.fromkeys((report.stage, name.removesuffix(".json"))):
            outputs = {f"{task}.{key}": here(value, settings.home) for key, value in report.outputs.items()}
            upstream |= {key: value for key, value in outputs.items() if output_read(stage, read, key)}
    return replace(request, inputs=inputs, upstream=upstream)


def shown(request: "StageRequest") -> dict[str, Any]:
    """The request without derived fields, for display."""
    inputs = {name: f"{handoff.uri}@v{handoff.version}" for name, handoff in request.inputs.items()}
    left_out = ("inputs", "profile_hash", "report_uri", "dag")
    kept = {name: value for name, value in vars(request).items() if name not in left_out}
    return {**kept, "inputs": inputs, "identity": request.identity().key()}


def _start(stage: "Stage", request: "StageRequest") -> "StageReport":
    """Run the stage in this process."""
    from schemas.handoff import read_report
    from schemas.stage_runner import run_stage

    work = import_module(f"{stage.module.rpartition('.')[0]}.entry").run
    run_stage(stage.name, work, request.to_argv())
    report = read_report(request.report_uri)
    assert report is not None, "run_stage leaves a report"
    return report


def _leave(task: str, request: "StageRequest", report: "StageReport") -> None:
    """Make the report the newest of the day."""
    from infra.settings import load_settings
    from schemas.handoff import write_report

    if report.status != "dry_run":
        write_report(load_settings().latest_report_uri(request.dataset, request.partition, task), report)
