"""Documentation of a settings class: default, accepted values and meaning of each setting.

Names, defaults and bounds come from the fields, meanings from the ``Args:`` in the docstrings of the class and its
bases.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from infra.bounds import number
from infra.settings import REPOSITORY

KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "object": "table"}
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
_ARGUMENTS = re.compile(r"^ *Args:\n(.*?)(?=^ *\w+:\n|\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^(\w+(?:, \w+)*): (.*)$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class SettingDoc:
    """One setting.

    Args:
        default: in JSON.
        takes: accepted values.
        meaning: from the docstrings, may be empty.
    """

    name: str
    default: str
    takes: str
    meaning: str


def describe(kind: type) -> list[SettingDoc]:
    """The settings of a dataclass or pydantic model, in the order of its fields."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    schema = adapter.json_schema()
    meanings = _meanings(kind)
    return [
        SettingDoc(
            name=name,
            default="required" if "default" not in field else json.dumps(field["default"]),
            takes=_takes(field, schema.get("$defs", {})),
            meaning=meanings.get(name, ""),
        )
        for name, field in schema["properties"].items()
    ]


def _meanings(kind: type) -> dict[str, str]:
    """Meanings by setting; those of a class override those of its bases."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        block = _ARGUMENTS.search(one.__dict__.get("__doc__") or "")
        if block is None:
            continue
        lines = block[1].rstrip().split("\n")
        margin = len(lines[0]) - len(lines[0].lstrip())
        entries: list[str] = []
        for line in lines:
            if line[:margin].strip() == "" and not line[margin : margin + 1].isspace() and line.strip():
                entries.append(line.strip())
            elif entries:
                entries[-1] = f"{entries[-1]} {line.strip()}".rstrip()
        for entry in entries:
            if (parts := _ENTRY.match(entry)) is not None:
                found |= dict.fromkeys(parts[1].split(", "), parts[2].replace("``", "`"))
    return found


def _takes(field: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """The values that a field of a JSON schema accepts, in words."""
    if "$ref" in field:
        return _takes(named[field["$ref"].rpartition("/")[2]], named)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_takes(one, named) for one in field["anyOf"]))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "null":
        return "null"
    if field.get("type") == "array":
        inner = _takes(field["items"], named) if field.get("items") else "anything"
        return f"list of {inner}"
    bounds = [f"{word} {number(field[bound])}" for bound, word in BOUNDS.items() if bound in field]
    return " ".join([KINDS.get(field.get("type", ""), "anything"), *bounds])


def as_text(section: str, settings: Iterable[SettingDoc], here: Mapping[str, Any]) -> str:
    """The settings for a terminal.

    Args:
        here: values of the profile in use, by setting.
    """
    lines = []
    for setting in settings:
        profile = f"; {json.dumps(here[setting.name])} in this profile" if setting.name in here else ""
        lines.append(
            f"  {section}.{setting.name}: {setting.takes.replace('`', '')} (default {setting.default}{profile})"
        )
        if setting.meaning:
            lines.append(f"      {setting.meaning}")
    return "\n".join(lines)


def as_markdown(settings: Iterable[SettingDoc]) -> str:
    """The settings as a Markdown table, the same in every checkout."""
    rows = []
    for setting in settings:
        default = setting.default.replace(str(REPOSITORY), "<checkout>")
        cells = f"| `{setting.name}` | `{default}` | {setting.takes} | {setting.meaning} |"
        rows.append(cells.replace("|  |", "| |"))
    return "\n".join(["| setting | default | takes | meaning |", "|---|---|---|---|", *rows])
