"""The registry of stages says what the code does: entry points, tables and settings."""

import ast
import functools
import importlib
import sys
from types import SimpleNamespace

import pytest

from infra.settings import REPOSITORY, Settings
from schemas.handoff import Handoff, StageReport
from schemas.recipes import of_kind
from schemas.sections import settings_of
from schemas.stage_request import StageRequest
from schemas.stages import RECIPE, STAGES, TABLE_NAMES, maker_of
from schemas.tables import TABLES
from schemas.tables_to_read import tables_to_read

FILES = {
    path.stem: f"{room}.stages.{path.stem}"
    for room in ("pipelines", "ray_jobs")
    for path in (REPOSITORY / room / "stages").glob("[!_]*.py")
    if path.stem != "entry"
}
ALL_TABLES = {"erasure", "clean_up"}
"""Stages that go through every table there is."""
each = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


def test_every_entry_point_is_a_row_and_every_row_an_entry_point():
    assert {name: stage.module for name, stage in STAGES.items()} == FILES


def test_a_table_has_its_name_and_its_maker():
    assert {name: table.name for name, table in TABLES.items()} == {name: name for name in TABLE_NAMES}
    made = {"items": "ingest", "llm_responses": "preferences", "quarantine": "ingest", "steering_probes": None}
    assert {name: maker_of(name) for name in made} == made | {"steering_probes": "preference_benchmark"}


@each
def test_a_stage_reads_what_stages_before_it_make(stage):
    order = list(STAGES)
    for table in stage.reads:
        assert table not in stage.writes
        assert table == "erasures" or order.index(maker_of(table)) < order.index(stage.name), table
    assert all(order.index(name) < order.index(stage.name) for name in stage.after)
    assert not stage.default_recipe or RECIPE in stage.sections


@functools.cache
def mentions(module):
    """Tables that a module names, and modules of its room that it imports."""
    path = REPOSITORY.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        return frozenset(), frozenset()
    tables, imported = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and node.value in TABLES:
            tables.add(node.value)
        elif isinstance(node, ast.Name) and node.id.lower() in TABLES and node.id.isupper():
            tables.add(node.id.lower())
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == module.split(".")[0]:
            imported |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return frozenset(tables), frozenset(imported)


@each
def test_the_code_of_a_stage_names_the_tables_that_it_declares(stage):
    # Entry points of Ray load the module of their work by name.
    seen, waiting, named = set(), {stage.module, stage.module.replace(".stages.", ".")}, set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        tables, imported = mentions(module)
        named |= tables
        waiting |= imported - seen
    # A card lists the versions of these.
    named |= {"reviews", "item_vectors", "semantic_ids"} if stage.name == "register" else set()
    assert {*stage.reads, *stage.writes} <= named


@each
def test_an_entry_point_reads_the_settings_that_its_stage_declares(stage, monkeypatch, tmp_path):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    entry = importlib.import_module(f"{stage.module.rpartition('.')[0]}.entry")
    work = stage.module.replace(".stages.", ".")
    asked, done = [], StageReport(stage=stage.name, status="dry_run")
    monkeypatch.setitem(sys.modules, work, SimpleNamespace(run=lambda request: asked.append(request) or done))
    read = set()
    monkeypatch.setattr(StageRequest, "require_section", lambda self, section: read.add(section))
    overrides = {"erasure.users": ["u"]} if stage.name == "erasure" else {}
    request = StageRequest(stage=stage.name, dataset="none", partition="2026-01-31", overrides=overrides)
    entry.run(request)
    assert asked == [request]
    # The erasure looks up one setting of text_vectors, which is a stage of the other room.
    assert read == {*stage.sections_of()} - ({"text_vectors"} if stage.name == "erasure" else set())


def test_what_training_reads_is_known_for_every_recommender():
    settings, train = Settings(stages={}), STAGES["train"]
    for name, recipe in of_kind("recommender").items():
        needed = {*recipe.tables(vars(settings_of(name, settings)))} & {*train.reads}
        assert {*tables_to_read(train, settings, {}, name)} == {"items", "sequences", "preferences", *needed}
    assert tables_to_read(STAGES["register"], settings, {}) == STAGES["register"].reads
    assert "denoised_sequences" not in tables_to_read(STAGES["evaluate"], settings, {})


def test_what_is_not_declared_cannot_be_read():
    request = StageRequest(stage="train", dataset="d", partition="2026-01-31", recipe="tiger")
    request.require_section("tiger")
    request.require_table("sequences")
    with pytest.raises(AssertionError, match="train reads settings of 'mendertok', which its row"):
        request.require_section("mendertok")
    with pytest.raises(AssertionError, match="train reads the table 'reviews', which its row"):
        request.require_table("reviews")
    StageRequest(stage="some_tool", dataset="d", partition="2026-01-31").require_section("mendertok")


def test_a_profile_is_hashed_as_far_as_it_is_read():
    train, preferences = STAGES["train"], STAGES["preferences"]
    known = train.profile_hash({"sasrec": {"epochs": 3}, "evaluate": {"seed": 1}}, "m", "sasrec")
    assert known == train.profile_hash({"tiger": {}, "sasrec": {"epochs": 3}}, "another", "sasrec")
    assert known != train.profile_hash({"sasrec": {"epochs": 4}}, "m", "sasrec")
    assert known != train.profile_hash({"sasrec": {"epochs": 3}, "steering": {"enabled": False}}, "m", "sasrec")
    assert preferences.profile_hash({}, "m") != preferences.profile_hash({}, "another")


def test_another_home_of_the_same_input_is_other_work():
    def request(**given):
        read = Handoff(**{"table": "items", "uri": "/w/items", "version": 1, "rows": 2, "schema_hash": "h"} | given)
        return StageRequest(stage="item_vectors", dataset="d", partition="2026-01-31", inputs={"items": read})

    assert request().identity() == request(rows=3).identity()
    assert (
        len({request(**given).identity() for given in ({}, {"version": 2}, {"uri": "/v"}, {"schema_hash": "i"})}) == 4
    )
