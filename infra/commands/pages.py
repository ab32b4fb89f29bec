"""Tables in the pages of the manual that come from the registries and from the settings classes.

A page has ``<!-- made: WHAT -->`` before such a table and ``<!-- end -->`` after it; ``penchant settings --write``
fills in what belongs between. WHAT is ``settings SECTION``, ``profile SECTION`` for a section of the profile,
``recipes KIND`` for a table of recipes with their settings, ``stages`` or ``tables``.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path

from infra.commands.sections import kinds
from infra.errors import SettingError
from infra.setting_docs import as_markdown, describe
from infra.settings import REPOSITORY
from schemas.recipes import RECIPES
from schemas.sections import SECTIONS, class_of
from schemas.stages import STAGES, maker_of
from schemas.tables import TABLES

ROOMS = ("dags", "infra", "pipelines", "ray_jobs", "schemas")
_MADE, _END = "<!-- made: ", "<!-- end -->"


def pages(repository: Path = REPOSITORY) -> list[Path]:
    """The pages of the manual."""
    found = [page for room in ROOMS for page in sorted((repository / room).rglob("*.md"))]
    return [repository / "README.md", *found]


def write(repository: Path = REPOSITORY) -> list[Path]:
    """Update every page; returns those that changed."""
    changed = []
    for page in pages(repository):
        text = page.read_text(encoding="utf-8")
        made = filled(text)
        if made != text:
            page.write_text(made, encoding="utf-8")
            changed.append(page)
    return changed


def filled(text: str) -> str:
    """A page with its generated tables.

    Raises:
        SettingError: it names a table that does not exist, or a table has no end.
    """
    made, *tables = text.split(_MADE)
    for table in tables:
        what, _, rest = table.partition(" -->\n")
        _, end, after = rest.partition(_END)
        if not end:
            raise SettingError(f"no {_END} after {_MADE}{what[:80]}")
        made += f"{_MADE}{what} -->\n\n{_content(what)}\n\n{end}{after}"
    return made


def _content(what: str) -> str:
    name, _, of = what.partition(" ")
    makers: Mapping[str, Callable[[str], str]] = {
        "settings": lambda section: as_markdown(describe(_kind(section))),
        "profile": lambda section: as_markdown(describe(kinds()[section][0])),
        "recipes": _recipes,
        "stages": lambda _: _stages(),
        "tables": lambda _: _tables(),
    }
    if name not in makers:
        raise SettingError(f"no table {what[:80]!r}; there are {', '.join(makers)}")
    return makers[name](of)


def _kind(section: str) -> type:
    if section not in SECTIONS:
        raise SettingError(f"no section {section[:80]!r} in schemas/sections.py")
    return class_of(section)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _recipes(kind: str) -> str:
    """The recipes of a kind, with their settings; shared ones come once, before those of single recipes."""
    named = {name: recipe for name, recipe in RECIPES.items() if recipe.kind == kind}
    rows = [
        (
            f"`{name}`",
            recipe.summary,
            ", ".join(sorted(recipe.needs)),
            recipe.status,
            f"{recipe.paper.authors}, {recipe.paper.year}" if recipe.paper else "",
        )
        for name, recipe in named.items()
    ]
    parts = [_table(("recipe", "how", "needs", "status", "paper"), rows)]
    sharing: dict[type, list[str]] = {}
    for name in named:
        for one in reversed(class_of(name).__mro__):
            sharing.setdefault(one, []).append(name)
    for one, names in sorted(sharing.items(), key=lambda shared: -len(shared[1])):
        declared = inspect.get_annotations(one)
        if is_dataclass(one) and (own := [setting for setting in describe(one) if setting.name in declared]):
            parts += [f"Settings of {', '.join(f'`{name}`' for name in names)}:", as_markdown(own)]
    return "\n\n".join(parts)


def _stages() -> str:
    rows = [
        (f"`{one.name}`", one.engine, ", ".join(one.reads), ", ".join(one.writes), ", ".join(one.sections))
        for one in STAGES.values()
    ]
    return _table(("stage", "engine", "reads", "writes", "settings"), rows).replace("<", "&lt;").replace(">", "&gt;")


def _tables() -> str:
    rows = [
        (f"`{table.name}`", table.description, f"`{maker_of(name)}`", ", ".join(table.partition_by))
        for name, table in TABLES.items()
    ]
    return _table(("table", "what a row is", "made by", "partitioned by"), rows)
