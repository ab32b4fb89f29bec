"""What a stage is asked to do, and the one command line that every entry point shares."""

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


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """One stage of one run.

    Args:
        stage: name of the stage, e.g. ``sequences``.
        dataset: which data set; its tables live in a folder of that name.
        partition: the day, ISO format.
        recipe: which method fills the stage where several can (``mendertok``), else the stage's own name.
        overrides: dotted settings, e.g. ``{"mendertok.epochs": 3}``, on top of the profile's.
        inputs: tables to read, at the version the producer published; a table that is not named here is
            read at its newest version.
        upstream: `StageReport.outputs` of earlier stages, merged.
        profile_hash: of what the profile says to the stage, see `schemas.stages.Stage.profile_hash`.
        report_uri: where the stage leaves its report; nowhere when empty. No part of the identity.
    """

    stage: str
    dataset: str
    partition: str
    recipe: str = ""
    dag: str = "manual"
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
            raise DataError(f"generation is {str(self.generation)[:40]!r}, but must be a whole number from 0 on")

    def partition_date(self) -> dt.date:
        """The partition as a date."""
        return dt.date.fromisoformat(self.partition)

    def sections(self) -> tuple[str, ...] | None:
        """Sections of settings that the stage declares, see `schemas.stages`; None for a tool, which is no stage."""
        return STAGES[self.stage].sections_of(self.recipe) if self.stage in STAGES else None

    def require_section(self, section: str) -> None:
        """Hold the stage to the settings that it declares: others are no part of its identity."""
        declared = self.sections()
        assert declared is None or section in declared, _undeclared(self.stage, "settings of", section)

    def require_table(self, table: str) -> None:
        """Hold the stage to the tables that it declares."""
        stage = STAGES.get(self.stage)
        assert stage is None or table in (*stage.reads, *stage.writes), _undeclared(self.stage, "the table", table)

    def identity(self) -> RunIdentity:
        """The identity of this stage's work: same inputs, settings and generation give the same one.

        An override of a section that the stage does not read is no part of it.
        """
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
        inputs = {name: vars(h) for name, h in self.inputs.items()}
        return [
            f"--dataset={self.dataset}",
            f"--partition={self.partition}",
            f"--recipe={self.recipe}",
            f"--dag={self.dag}",
            f"--generation={self.generation}",
            f"--overrides={json.dumps(dict(self.overrides), sort_keys=True)}",
            f"--inputs={json.dumps(inputs, sort_keys=True)}",
            f"--upstream={json.dumps(dict(self.upstream), sort_keys=True)}",
            f"--profile-hash={self.profile_hash}",
            f"--report-uri={self.report_uri}",
        ]

    @classmethod
    def parse(cls, stage: str, description: str, argv: Sequence[str] | None = None) -> "StageRequest":
        """Parse a stage's command line (`sys.argv` by default); ``--help`` shows `description`."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--dataset", required=True, help="name of a registered data set")
        parser.add_argument("--partition", required=True, help="day to work on, e.g. 2026-01-31")
        parser.add_argument("--recipe", default="", help="method that fills the stage, e.g. mendertok")
        parser.add_argument("--dag", default="manual", help="name of the DAG the work belongs to")
        parser.add_argument("--generation", type=int, default=0, help="raise it to do finished work again")
        parser.add_argument(
            "--overrides", type=_json_object, default={}, metavar="JSON", help="e.g. '{\"mendertok.epochs\": 3}'"
        )
        parser.add_argument(
            "--inputs", type=_handoffs, default={}, metavar="JSON", help="tables by name, at fixed versions"
        )
        parser.add_argument("--upstream", type=_texts, default={}, metavar="JSON", help="outputs of earlier stages")
        parser.add_argument("--profile-hash", default="", help="hash of what the profile says to the stage")
        parser.add_argument("--report-uri", default="", help="where to leave the stage's report (JSON)")
        given = parser.parse_args(argv)
        return cls(
            stage=stage,
            dataset=given.dataset,
            partition=given.partition,
            recipe=given.recipe,
            dag=given.dag,
            generation=given.generation,
            overrides=given.overrides,
            inputs=given.inputs,
            upstream=given.upstream,
            profile_hash=given.profile_hash,
            report_uri=given.report_uri,
        )


def _undeclared(stage: str, what: str, name: str) -> str:
    return f"the stage {stage} reads {what} {name!r}, which its row in schemas/stages.py does not declare"


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{reprlib.repr(text)} is no JSON object; write it as '{{\"name\": value}}'")
    return found


def _texts(text: str) -> dict[str, str]:
    found = _json_object(text)
    for name, value in found.items():
        if not isinstance(value, str):
            raise argparse.ArgumentTypeError(f"{_short(name)} is {_short(value)}, but must be a text in quotes")
    return found


def _handoffs(text: str) -> dict[str, Handoff]:
    """Tables by name, each with exactly the fields of a hand-off."""
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
