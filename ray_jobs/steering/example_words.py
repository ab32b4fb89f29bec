"""Words to show steering with: common in the catalogue, and seen in titles."""

import re
from collections.abc import Sequence

import numpy as np

from ray_jobs.steering.terms import Terms
from ray_jobs.steering.word_following import common
from schemas.words import stem

_SEEN = 0.5
"""Share of a word's items whose title has it at least, so that a person sees the list follow."""
_LOOKED_THROUGH, _TITLES = 40, 200
"""Words, and titles of each, that are looked at."""
_WORD = re.compile(r"[A-Za-z0-9]+")


def example_words(terms: Terms, titles: Sequence[str], count: int) -> list[int]:
    """Rows of the commonest single words that most of their items have in the title; others where these are too few."""
    having = [terms.having(row) for row in range(len(terms.forms))]
    rows = [row for row in common(having, len(titles), _LOOKED_THROUGH) if " " not in terms.stems[row]]

    def seen(row: int) -> bool:
        places = [stem_place(terms.stems[row], titles[item]) for item in terms.having(row)[:_TITLES].tolist()]
        return bool(np.mean([place is not None for place in places]) >= _SEEN)

    return sorted(rows, key=lambda row: not seen(row))[:count]


def stem_place(stemmed: str, title: str) -> tuple[int, int] | None:
    """Where the first word of that stem stands in a title."""
    return next((match.span() for match in _WORD.finditer(title) if stem(match.group()) == stemmed), None)
