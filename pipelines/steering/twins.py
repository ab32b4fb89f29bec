"""A dislike turned round by rule: the sentence that asks for what it rejects."""

import re

from pipelines.language.validation import LIKE, VERBS

_REJECTION = re.compile(r"(?:avoids?|excludes?|no)\s+(\S.*)", re.IGNORECASE | re.DOTALL)


def positive_twin(line: str) -> str | None:
    """``Prefers x`` for ``Avoids x``, ``Excludes x`` or ``No x``; None for a line that starts with no such word.

    The word must stand alone: "Non-stick" and "No-frills" reject nothing.
    """
    found = _REJECTION.fullmatch(line.strip())
    return f"{VERBS[LIKE]} {found[1]}" if found else None
