"""What there is: recipes, stages, tables and settings, each from its one registry."""

import json
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from infra.commands.parser import Parser
from infra.errors import SettingError
from infra.suggestions import unknown


def _parser(summary: str, what: str) -> Parser:
    parser = Parser(description=summary)
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"{what}; all are listed without one")
    return parser


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("\n".join([*lines, ""]))


def _listed(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


def tables(argv: Sequence[str] | None = None) -> None:
    """List the tables of a data set, or the columns and checks of one."""
    parser = _parser("The tables of a data set, or everything about one.", "a table, such as reviews")
    name = parser.parse_args(argv).name
    from schemas.tables import TABLES

    if name is None:
        _print(_listed([(table.name, table.description) for table in TABLES.values()]))
        return
    if name not in TABLES:
        parser.error(unknown("table", name, TABLES, "penchant tables"))
    table = TABLES[name]
    columns = [
        (f"  {column.name}", f"{column.type}{' or null' if column.nullable else ''}", column.description)
        for column in table.columns
    ]
    checks = [
        f"  {check.severity}: {check.expectation} {json.dumps(check.arguments)}: {check.reason}"
        for check in table.checks
    ]
    _print(
        [
            f"{table.name}: {table.description}",
            f"Key {', '.join(table.key)}; a partition for each {', '.join(table.partition_by) or 'table'}; "
            f"old versions are kept for {table.retention_days} days",
            "Columns",
            *_listed(columns),
            *(["Checks", *checks] if checks else []),
        ]
    )


def recipes(argv: Sequence[str] | None = None) -> None:
    """List the recipes, or all settings of one with default, bound and meaning."""
    parser = _parser("The recipes, or everything about one.", "a recipe, such as mendertok")
    name = parser.parse_args(argv).name
    from schemas.recipes import RECIPES

    if name is None:
        _print(_listed([(name, recipe.kind, recipe.status, recipe.summary) for name, recipe in RECIPES.items()]))
        return
    if name not in RECIPES:
        parser.error(unknown("recipe", name, RECIPES, "penchant recipes"))
    from infra.setting_docs import as_text, describe
    from infra.settings import load_settings

    recipe = RECIPES[name]
    try:
        here = load_settings().stages.get(name, {})
    except SettingError as error:
        parser.error(str(error))
    module, _, settings = recipe.settings.partition(":")
    described = describe(getattr(import_module(f"ray_jobs.recipes.{module}"), settings))
    _print([f"{name}, {recipe.status} {recipe.kind}: {recipe.summary}", "Settings", as_text(name, described, here)])
