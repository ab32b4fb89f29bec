"""Words to demonstrate steering with: common in the catalogue and visible in titles."""

import re
from collections.abc import Sequence

import numpy as np

from ray_jobs.steering.terms import Terms
from ray_jobs.steering.word_following import commonest
from schemas.words import stem

_VISIBLE = 0.5
"""Share of a word's items with the word in their title from which a person sees the list follow."""
_MOST_WORDS, _MOST_TITLES = 40, 200
"""Number of words that are tried, and of titles of each."""
_WORD = re.compile(r"[A-Za-z0-9]+")


def example_words(terms: Terms, titles: Sequence[str], count: int) -> list[int]:
    """Rows of the most common single words, those that most of their items have in the title first."""
    having = [terms.having(row) for row in range(len(terms.forms))]
    rows = [row for row in commonest(having, len(titles), _MOST_WORDS) if " " not in terms.stems[row]]

    def visible(row: int) -> bool:
        places = [stem_place(terms.stems[row], titles[item]) for item in having[row][:_MOST_TITLES].tolist()]
        return bool(np.mean([place is not None for place in places]) >= _VISIBLE)

    return sorted(rows, key=lambda row: not visible(row))[:count]


def stem_place(stemmed: str, title: str) -> tuple[int, int] | None:
    """Start and end of the first word of the title with that stem."""
    return next((match.span() for match in _WORD.finditer(title) if stem(match.group()) == stemmed), None)
