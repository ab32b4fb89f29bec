"""Validation of names that become part of a path, a table or an identity, for forms, the API and command lines.

Two spellings of a day would make two runs of one partition, and a name with a slash a path outside of its folder.
"""

import argparse
import datetime as dt
import re
from collections.abc import Callable

from schemas.errors import DataError

LONGEST = 64
_SHOWN = 80
_NO_SPACE = r"(?!\S*\s)"  # "$" alone lets a line break at the end pass
DATASET_PATTERN = rf"^{_NO_SPACE}[a-z0-9][a-z0-9_-]{{0,{LONGEST - 1}}}$"
"""Names of data sets; means the same in JSON Schema and in Python."""
DAY_PATTERN = rf"^{_NO_SPACE}[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$"
"""Days; forms also check that the day exists."""
_NAME = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{LONGEST - 1}}}", re.IGNORECASE)


def dataset_name(name: str) -> str:
    """`name`, if it is valid for a data set.

    Raises:
        DataError: it is not.
    """
    if not isinstance(name, str) or not re.search(DATASET_PATTERN, name):
        raise DataError(
            f"data set name {_shown(name)}: use up to {LONGEST} lower case letters, digits, '-' and '_', with a letter "
            "or digit first"
        )
    return name


def partition_day(text: str) -> str:
    """`text`, if it is a day in ISO format.

    Raises:
        DataError: it is not.
    """
    try:
        if not isinstance(text, str) or not re.search(DAY_PATTERN, text):
            raise ValueError
        dt.date.fromisoformat(text)
    except ValueError:
        raise DataError(f"partition {_shown(text)} is not a day such as 2026-01-31") from None
    return text


def plain_name(name: str, what: str) -> str:
    """`name`, if it is safe as a file name.

    Args:
        what: what it names, for the message.

    Raises:
        DataError: it is not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(f"{what} {_shown(name)}: use up to {LONGEST} letters, digits, '-', '_' and '.'")
    return name


def _argument(check: Callable[[str], str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            return check(text)
        except DataError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}... ({len(str(value)):,} characters)"


DATASET = _argument(dataset_name)
"""``type`` of a command-line argument that names a data set."""
DAY = _argument(partition_day)
"""``type`` of a command-line argument that is a day."""
