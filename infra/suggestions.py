"""What a person may have meant who wrote a name that does not exist."""

import difflib
from collections.abc import Iterable

MOST = 3
FEW = 12
"""So many names are listed in full where none is near."""


def unknown(what: str, name: str, known: Iterable[str], listed_by: str = "") -> str:
    """One line about a name that is none of `known`: those that are near it, else what there is.

    Args:
        what: which kind of name, such as ``stage``.
        listed_by: the command that lists all of them.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, MOST)
    where = f" (`{listed_by}` lists them)" if listed_by else ""
    if near:
        return f"no {what} {name[:80]!r}: did you mean {' or '.join(near)}?{where}"
    shown = f"; there are {', '.join(names)}" if len(names) <= FEW else ""
    return f"no {what} {name[:80]!r}{shown}{where}"
