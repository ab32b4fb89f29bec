"""Properties that items have or lack, each with a sentence that requests it and one that rejects it."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.landing.planted_world.perfect_reader import attribute_line
from pipelines.landing.planted_world.truth import Truth
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from pipelines.language.validation import DISLIKE, LIKE, VERBS

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

    Sentences are those of the perfect reader; an attribute that preferences never mention (a low price) has none.

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


def _probe(name: str, kind: str, preference: str, opposite: str, items: Iterable[str]) -> dict[str, Any]:
    return {
        "probe": name,
        "kind": kind,
        "preference": preference,
        "opposite": opposite,
        "item_ids": sorted(items),
    }
