"""Rules of a request: which items of the catalogue may come."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recommenders.conditions import BoolArray, holds
from ray_jobs.recommenders.requests import rows
from schemas.errors import DataError
from schemas.item_conditions import read_condition

RULES = ("allow", "deny", "where")
"""The columns of `schemas.columns` that are rules."""
_KEPT = 64
"""Conditions whose items are kept, since applications ask the same few again and again."""


class Rules:
    """What may come out of a catalogue under the rules of requests."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._where = lru_cache(maxsize=_KEPT)(self._holds)

    def allowed(self, requests: int, allow: Any = None, deny: Any = None, where: Any = None) -> BoolArray | None:
        """The items that each of so many requests may get, bool[B, N]; None if no request has a rule.

        Args:
            allow, deny: item ids for each request, the only ones that may come and those that may not; an empty list is
                no rule. Ids that the catalogue lacks are no items.
            where: a condition for each request, see `schemas.item_conditions`; "" is no rule.

        Raises:
            DataError: a value has another form, a condition cannot be read, or the catalogue has no attributes.
        """
        allows, denies = _lists(allow, "allow", requests), _lists(deny, "deny", requests)
        conditions = _conditions(where, requests)
        if not any(map(len, (*allows, *denies, *conditions))):
            return None
        found = np.ones((requests, len(self._catalogue)), dtype=np.bool_)
        for row in range(requests):
            if len(allows[row]):
                found[row] = False
                found[row, self._places(allows[row])] = True
            found[row, self._places(denies[row])] = False
            if conditions[row]:
                found[row] &= self._where(conditions[row])
        return found

    def check(self, where: str) -> None:
        """Raises DataError if the condition cannot be read, or the catalogue has no attributes."""
        if where.strip():
            self._where(where.strip())

    def _places(self, item_ids: Sequence[str]) -> list[int]:
        index = self._catalogue.index
        return [index[item] for item in item_ids if item in index]

    def _holds(self, where: str) -> BoolArray:
        condition = read_condition(where)
        if self._catalogue.attributes is None:
            raise DataError("this model knows no attributes of items: train it again, or leave the condition out")
        return holds(condition, self._catalogue.attributes)


def _lists(values: Any, name: str, requests: int) -> Sequence[Sequence[str]]:
    found = [[] if value is None else value for value in _one_each(values, name, requests)]
    for place, value in enumerate(found):
        rows(value, f"{name} {place}", str)
    return found


def _conditions(values: Any, requests: int) -> Sequence[str]:
    found = ["" if value is None else value for value in _one_each(values, "where", requests)]
    rows(found, "where", str)
    return [value.strip() for value in found]


def _one_each(values: Any, name: str, requests: int) -> Sequence[Any]:
    if values is None:
        return [None] * requests
    rows(values, name, object)
    if len(values) != requests:
        raise DataError(f"{requests} histories came with {len(values)} {name}; give one for each")
    found: Sequence[Any] = values
    return found
