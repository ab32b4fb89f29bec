"""The one form of every name that gets into a path, a table or an identity: for forms, the API and command lines alike.

Two spellings of one day would be two runs of the same partition, and a name with a slash in it a place elsewhere.
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
"""What names a data set, as JSON Schema of a form and as Python read it alike."""
DAY_PATTERN = rf"^{_NO_SPACE}[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$"
"""How a day is written; a form also checks that there is such a day."""
_NAME = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{LONGEST - 1}}}", re.IGNORECASE)


def dataset_name(name: str) -> str:
    """`name`, which can name a data set.

    Raises:
        DataError: it cannot.
    """
    if not isinstance(name, str) or not re.search(DATASET_PATTERN, name):
        raise DataError(
            f"data set name {_shown(name)}: use up to {LONGEST} lower case letters, digits, '-' and '_', with a letter "
            "or digit first"
        )
    return name


def partition_day(text: str) -> str:
    """`text`, which is a day in the one form that partitions have.

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
    """`name`, which names a file in a folder and nothing outside of it.

    Args:
        what: whose name it is, for the message.

    Raises:
        DataError: it may name something else.
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
"""The type of a command line's argument that names a data set; a refusal has `dataset_name`'s own words."""
DAY = _argument(partition_day)
"""The type of a command line's argument that is a day."""
