"""The request to a stage, and the command line that all entry points share."""

import argparse
import datetime as dt
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from schemas.errors import DataError
from schemas.handoff import Handoff
from schemas.names import dataset_name, partition_day, plain_name
from schemas.run_identity import RunIdentity, config_hash
from schemas.stages import STAGES

BY_HAND = "manual"
"""Name of the DAG in requests that no DAG made."""


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """One stage of one run.

    Args:
        stage: name of the stage, e.g. ``sequences``.
        dataset: name of the data set.
        partition: the day, ISO format.
        recipe: the recipe of a stage that has several, e.g. ``mendertok``.
        overrides: dotted settings, e.g. ``{"mendertok.epochs": 3}``, that override the profile's.
        inputs: tables to read at fixed versions. Optional tables that are missing here are not read, others at their
            newest version. Without any inputs, all are read at their newest version.
        upstream: `StageReport.outputs` of earlier stages, by ``<task>.<output>``.
        profile_hash: see `schemas.stages.Stage.profile_hash`.
        report_uri: where to write the report; nowhere if empty. Not part of the identity.

    Raises:
        DataError: a name, the day or the generation is invalid.
    """

    stage: str
    dataset: str
    partition: str
    recipe: str = ""
    dag: str = BY_HAND
    generation: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Handoff] = field(default_factory=dict)
    upstream: Mapping[str, str] = field(default_factory=dict)
    profile_hash: str = ""
    report_uri: str = ""

    def __post_init__(self) -> None:
        dataset_name(self.dataset)
        partition_day(self.partition)
        if self.recipe:
            plain_name(self.recipe, "recipe")
        if isinstance(self.generation, bool) or not isinstance(self.generation, int) or self.generation < 0:
            raise DataError(f"generation is {str(self.generation)[:40]!r}, but must be a whole number, 0 or more")

    def partition_date(self) -> dt.date:
        """The partition as a date."""
        return dt.date.fromisoformat(self.partition)

    def sections(self) -> tuple[str, ...] | None:
        """Sections of settings that the stage declares in `schemas.stages`; None for a tool, which is not a stage."""
        return STAGES[self.stage].sections_of(self.recipe) if self.stage in STAGES else None

    def require_section(self, section: str) -> None:
        """Assert that the stage declares `section`: other settings are not part of its identity."""
        declared = self.sections()
        assert declared is None or section in declared, _undeclared(self.stage, "settings of", section)

    def require_table(self, table: str) -> None:
        """Assert that the stage declares `table`."""
        stage = STAGES.get(self.stage)
        assert stage is None or table in (*stage.reads, *stage.writes), _undeclared(self.stage, "the table", table)

    def identity(self) -> RunIdentity:
        """The identity of the work: a hash of inputs, settings that the stage declares, and generation."""
        declared = self.sections()
        work = {
            "stage": self.stage,
            "dataset": self.dataset,
            "overrides": {
                name: value
                for name, value in self.overrides.items()
                if declared is None or name.partition(".")[0] in declared
            },
            "inputs": {name: [h.uri, h.version, h.schema_hash] for name, h in self.inputs.items()},
            "upstream": dict(self.upstream),
            "profile": self.profile_hash,
        }
        recipe = f"{self.stage}-{self.recipe}" if self.recipe else self.stage
        return RunIdentity(
            dag=self.dag,
            partition=self.partition,
            recipe=recipe,
            config_hash=config_hash(work),
            generation=self.generation,
        )

    def to_argv(self) -> list[str]:
        """The command line that `parse` turns back into this request."""
        values = {**vars(self), "inputs": {name: vars(handoff) for name, handoff in self.inputs.items()}}
        del values["stage"]
        return [
            f"--{name.replace('_', '-')}="
            f"{json.dumps(dict(value), sort_keys=True) if isinstance(value, Mapping) else value}"
            for name, value in values.items()
        ]

    @classmethod
    def parse(cls, stage: str, description: str, argv: Sequence[str] | None = None) -> "StageRequest":
        """Parse a command line (`sys.argv` by default); ``--help`` shows `description`."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--dataset", required=True, help="name of a registered data set")
        parser.add_argument("--partition", required=True, help="day to work on, e.g. 2026-01-31")
        parser.add_argument("--recipe", default="", help="recipe of the stage, e.g. mendertok")
        parser.add_argument("--dag", default=BY_HAND, help="name of the DAG that the work belongs to")
        parser.add_argument("--generation", type=int, default=0, help="raise it to repeat finished work")
        parser.add_argument(
            "--overrides", type=_json_object, default={}, metavar="JSON", help="e.g. '{\"mendertok.epochs\": 3}'"
        )
        parser.add_argument(
            "--inputs", type=_handoffs, default={}, metavar="JSON", help="tables by name, at fixed versions"
        )
        parser.add_argument("--upstream", type=_texts, default={}, metavar="JSON", help="outputs of earlier stages")
        parser.add_argument("--profile-hash", default="", help="hash of the profile's settings that the stage reads")
        parser.add_argument("--report-uri", default="", help="where to write the report (JSON)")
        return cls(stage=stage, **vars(parser.parse_args(argv)))


def _undeclared(stage: str, what: str, name: str) -> str:
    return f"the stage {stage} reads {what} {name!r}, which its row in schemas/stages.py does not declare"


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(
            f"{reprlib.repr(text)} is not a JSON object; write it as '{{\"name\": value}}'"
        )
    return found


def _texts(text: str) -> dict[str, str]:
    found = _json_object(text)
    for name, value in found.items():
        if not isinstance(value, str):
            raise argparse.ArgumentTypeError(f"{_short(name)} is {_short(value)}, but must be a text in quotes")
    return found


def _handoffs(text: str) -> dict[str, Handoff]:
    """Hand-offs by table from a JSON object whose values have exactly their fields."""
    wanted = get_type_hints(Handoff)
    handoffs = {}
    for name, value in _json_object(text).items():
        if not isinstance(value, dict) or {field: type(given) for field, given in value.items()} != wanted:
            fields = ", ".join(f"{field} ({kind.__name__})" for field, kind in wanted.items())
            raise argparse.ArgumentTypeError(f"{_short(name)} is {_short(value)}, but must be an object of {fields}")
        handoffs[name] = Handoff(**value)
    return handoffs


def _short(value: object) -> str:
    return reprlib.repr(value)[:80]
