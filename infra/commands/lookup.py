"""The commands that list and describe recipes, stages, tables and settings."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from infra.commands.terminal import Parser, say
from infra.errors import UserError
from infra.suggestions import unknown


def _parser(summary: str, what: str) -> Parser:
    parser = Parser(description=summary)
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"{what}; all are listed without one")
    return parser


def _listed(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    widths.append(0)
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def tables(argv: Sequence[str] | None = None) -> None:
    """List the tables of a data set, or describe one."""
    parser = _parser("The tables of a data set, or everything about one.", "a table, such as reviews")
    name = parser.parse_args(argv).name

    from schemas.stages import STAGES, maker_of
    from schemas.tables import TABLES

    if name is None:
        say(_listed([(table.name, table.description) for table in TABLES.values()]))
        return
    if name not in TABLES:
        parser.error(unknown("table", name, TABLES, "penchant tables"))
    table = TABLES[name]
    readers = [stage.name for stage in STAGES.values() if name in stage.reads]
    columns = [
        (f"  {column.name}", f"{column.type}{' or null' if column.nullable else ''}", column.description)
        for column in table.columns
    ]
    checks = [
        f"  {check.severity}: {check.expectation} {json.dumps(check.arguments)}: {check.reason}"
        for check in table.checks
    ]
    say(
        [
            f"{table.name}: {table.description}",
            f"Made by {maker_of(name)}, read by {', '.join(readers) or 'no stage'}",
            f"Key {', '.join(table.key)}; a partition for each {', '.join(table.partition_by) or 'table'}; "
            f"old versions are kept for {table.retention_days} days",
            "Columns",
            *_listed(columns),
            *(["Checks", *checks] if checks else []),
        ]
    )


def stages(argv: Sequence[str] | None = None) -> None:
    """List the stages in the order of the data, or describe one."""
    parser = _parser("The stages in the order of the data, or everything about one.", "a stage, such as sequences")
    name = parser.parse_args(argv).name
    from schemas.stages import STAGES

    if name is None:
        head = ("stage", "engine", "writes", "reads")
        rows = [
            (one.name, one.engine, ", ".join(one.writes) or "-", ", ".join(one.reads) or "-") for one in STAGES.values()
        ]
        say(_listed([head, *rows]))
        return
    if name not in STAGES:
        parser.error(unknown("stage", name, STAGES, "penchant stages"))
    stage = STAGES[name]
    facts = {
        "engine": [stage.engine],
        "reads": stage.reads,
        "writes": stage.writes,
        "settings": stage.sections,
        "recipe": [f"the run's {stage.recipe}"] if stage.recipe else [],
        "upstream": [*stage.upstream, *stage.parameters],
    }
    lines = [(name, ", ".join(values)) for name, values in facts.items() if values]
    say([f"{stage.name}: {' '.join(stage.doc.split())}", *_listed(lines)])


def recipes(argv: Sequence[str] | None = None) -> None:
    """List the recipes, or describe one with all its settings."""
    parser = _parser("The recipes, or everything about one.", "a recipe, such as mendertok")
    name = parser.parse_args(argv).name
    from schemas.recipes import RECIPES

    if name is None:
        say(_listed([(name, one.kind, one.family, one.status, one.summary) for name, one in RECIPES.items()]))
        return
    if name not in RECIPES:
        parser.error(unknown("recipe", name, RECIPES, "penchant recipes"))
    recipe = RECIPES[name]
    paper = f"{recipe.paper.title} ({recipe.paper.authors}, {recipe.paper.year})" if recipe.paper else ""
    facts = {
        "family": recipe.family,
        "status": recipe.status,
        "paper": paper,
        "needs": ", ".join(sorted(recipe.needs)),
        "packages": ", ".join(recipe.packages),
        **{f"{name}.preset={preset}": json.dumps(dict(given)) for preset, given in recipe.presets.items()},
    }
    lines = _listed([(fact, value) for fact, value in facts.items() if value])
    say([f"{name}, a {recipe.kind}: {recipe.summary}", *lines, "settings", *_described(parser, name)])


def settings(argv: Sequence[str] | None = None) -> None:
    """List the sections of settings, describe one, or update the tables in the manual."""
    parser = _parser("The sections of settings, or every setting of one.", "a section, such as ingest or spark")
    parser.add_argument("--write", action="store_true", help="update the tables in the manual")
    given = parser.parse_args(argv)
    if given.write:
        from infra.commands.pages import write

        say(f"{page} is updated" for page in write())
        return
    from infra.commands.sections import kinds

    known = kinds()
    if given.name is None:
        say(_listed([(name, (classes[0].__doc__ or "").split("\n")[0]) for name, classes in known.items()]))
        return
    if given.name not in known:
        parser.error(unknown("section", given.name, known, "penchant settings"))
    say(_described(parser, given.name))


def _described(parser: Parser, section: str) -> list[str]:
    from infra.commands.sections import kinds
    from infra.setting_docs import as_text, describe
    from infra.settings import load_settings

    try:
        chosen = load_settings()
    except UserError as error:
        parser.error(str(error))
    here: Mapping[str, Any] = chosen.stages.get(section, {})
    return [as_text(section, describe(kind), here) for kind in kinds()[section]]
