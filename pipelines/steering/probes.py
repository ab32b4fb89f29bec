"""Properties that items have or lack, each with a sentence that requests it and one that rejects it."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.landing.planted_world.mentions import compressed
from pipelines.landing.planted_world.truth import Truth
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from pipelines.language.validation import DISLIKE, LIKE, VERBS, LineLimits, line_problem

CATEGORY, ATTRIBUTE = "category", "attribute"


def category_probes(categories: Mapping[str, Iterable[str]], least: int) -> list[dict[str, Any]]:
    """One probe per category, leaf or inner, that contains at least `least` and at most half of the items.

    Args:
        categories: the category path of each item of the catalogue.

    Returns:
        Rows of the table steering_probes without its partition column.
    """
    members: dict[str, list[str]] = {}
    for item, path in categories.items():
        for name in {name.strip() for name in path} - {""}:
            members.setdefault(name, []).append(item)
    return [
        _probe(name, CATEGORY, f"{VERBS[LIKE]} {name.lower()}", f"{VERBS[DISLIKE]} {name.lower()}", items)
        for name, items in sorted(members.items())
        if least <= len(items) <= len(categories) / 2
    ]


def attribute_probes(truth: Truth, catalogue: Iterable[str], least: int) -> list[dict[str, Any]]:
    """One probe per attribute of a planted world that at least `least` and at most half of the items have.

    An attribute that preferences never mention (a low price) has no sentences, and so no probe.

    Args:
        catalogue: ids of the day's items.

    Returns:
        As `category_probes`.
    """
    items = sorted(set(catalogue))
    found = []
    for name in sorted(ATTRIBUTES):
        wanted, rejected = attribute_line(LIKE, name), attribute_line(DISLIKE, name)
        having = [item for item in items if item in truth.items and name in truth.items[item].attributes]
        if wanted and rejected and least <= len(having) <= len(items) / 2:
            found.append(_probe(name, ATTRIBUTE, wanted, rejected, having))
    return found


def attribute_line(sentiment: str, name: str) -> str | None:
    """A preference about one attribute: the first phrase of the vocabulary that the stage `preferences` accepts.

    Args:
        sentiment: ``like`` or ``dislike``.

    Returns:
        The line; None for an attribute whose phrases all mention prices, which the stage refuses.
    """
    attribute = ATTRIBUTES[name]
    for phrase in attribute.praised if sentiment == LIKE else attribute.complained:
        line = f"{VERBS[sentiment]} {compressed(phrase)}"
        problem = line_problem(
            line, sentiment=sentiment, review=phrase, title=None, brand=None, examples=(), limits=LineLimits()
        )
        if problem is None:
            return line
    return None


def _probe(name: str, kind: str, preference: str, opposite: str, items: Iterable[str]) -> dict[str, Any]:
    return {
        "probe": name,
        "kind": kind,
        "preference": preference,
        "opposite": opposite,
        "item_ids": sorted(items),
    }
