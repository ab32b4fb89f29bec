"""What a person may have meant who wrote a name that does not exist."""

import difflib
from collections.abc import Iterable

MOST = 3
NEAR = 0.7
"""From this similarity on, of 1, a name may be what was meant."""
FEW = 12
"""So many names are listed in full where none is near."""


def near(name: str, known: Iterable[str]) -> list[str]:
    """Those of `known` that `name` is likely to be, the likeliest first."""
    return difflib.get_close_matches(name, sorted(known), MOST, NEAR)


def meant(name: str, known: Iterable[str]) -> str:
    """A question in brackets about what may have been meant; empty where nothing is near."""
    found = near(name, known)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def unknown(what: str, name: str, known: Iterable[str], listed_by: str = "") -> str:
    """One line about a name that is none of `known`: those that are near it, else what there is.

    Args:
        what: which kind of name, such as ``stage``.
        listed_by: the command that lists all of them.
    """
    names = sorted(known)
    where = f" (`{listed_by}` lists them)" if listed_by else ""
    if found := near(name, names):
        return f"no {what} {name[:80]!r}: did you mean {' or '.join(found)}?{where}"
    shown = f"; there are {', '.join(names)}" if len(names) <= FEW else ""
    return f"no {what} {name[:80]!r}{shown}{where}"
