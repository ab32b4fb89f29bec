"""Command lines with a flag for each setting of a section."""

import argparse
import inspect
from dataclasses import fields
from typing import Any

from infra.bounds import Bounded


def parser_for(kind: type[Bounded], description: str | None) -> argparse.ArgumentParser:
    """A parser with a flag for each setting of `kind`, which is None if not given.

    Settings that are hidden in the class's representation get no flag: every user of the machine sees command lines.
    """
    text = f"{description}\n{inspect.getdoc(kind)}"
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.repr:
            several = isinstance(field.default, tuple)
            flag, value = f"--{field.name.replace('_', '-')}", str if several else type(field.default)
            parser.add_argument(flag, type=value, nargs="+" if several else None, help=f"default {field.default}")
    return parser


def overrides(kind: type[Bounded], given: dict[str, Any]) -> dict[str, Any]:
    """Settings of `kind` by full name from the values of its flags."""
    return {f"{kind.section}.{key}": value for key, value in given.items() if value is not None}
