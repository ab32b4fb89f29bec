"""Suggestions for names that do not exist."""

import difflib
from collections.abc import Iterable

MOST = 3
NEAR = 0.7
"""Similarity, of 1, from which a name is suggested."""
FEW = 12
"""Up to this many names are listed in full if none is near."""


def near(name: str, known: Iterable[str]) -> list[str]:
    """Names in `known` similar to `name`, the most similar first."""
    return difflib.get_close_matches(name, sorted(known), MOST, NEAR)


def meant(name: str, known: Iterable[str]) -> str:
    """The suggestion in brackets; empty if no name is similar."""
    found = near(name, known)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def unknown(what: str, name: str, known: Iterable[str], listed_by: str = "") -> str:
    """The message for a name that is not in `known`, with suggestions or the few names there are.

    Args:
        what: the kind of name, such as ``stage``.
        listed_by: the command that lists all names.
    """
    names = sorted(known)
    where = f" (`{listed_by}` lists them)" if listed_by else ""
    if found := near(name, names):
        return f"no {what} {name[:80]!r}: did you mean {' or '.join(found)}?{where}"
    shown = f"; there are {', '.join(names)}" if len(names) <= FEW else ""
    return f"no {what} {name[:80]!r}{shown}{where}"
