"""Read the truth of a planted world from its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.landing.planted_world.tastes import Taste
from schemas.errors import DataError

LIKE, DISLIKE = "like", "dislike"
_SENTIMENTS = {"liked": LIKE, "missed": LIKE, "disliked": DISLIKE, "avoided": DISLIKE}

_FILES = ("items.jsonl", "users.jsonl", "positions.jsonl")

# (like or dislike, name of the attribute).
Opinion = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class TrueItem:
    """An item of the world."""

    item_id: str
    title: str
    category: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TruePosition:
    """One purchase.

    Args:
        opinions: of the review: liked and missed attributes are likes, disliked and avoided ones are dislikes.
        meant: for noise, the item that the taste would have chosen; None otherwise.
    """

    user_id: str
    position: int
    item_id: str
    is_noise: bool
    meant: str | None
    stars: float
    opinions: frozenset[Opinion]
    text: str
    taste: Taste

    @cached_property
    def tastes(self) -> frozenset[Opinion]:
        """The planted taste that governs the position, as opinions."""
        likes = ((LIKE, name) for name in self.taste.likes)
        return frozenset((*likes, *((DISLIKE, name) for name in self.taste.dislikes)))


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A world's items by id, and its positions by (user, item), which is unique there."""

    items: Mapping[str, TrueItem]
    positions: Mapping[tuple[str, str], TruePosition]

    def match(self, taste: Taste, item_id: str) -> float:
        """How well an item suits a taste: above 0 within it, at most 0 outside."""
        item = self.items[item_id]
        return taste.match_of(item.category, item.attributes)


def require_truth(folder: Path) -> None:
    """Check that a folder holds a truth.

    Raises:
        DataError: a file is missing.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise DataError(f"no {name} in {folder}: give the folder truth/ that a planted world was written with")


def read_truth(folder: Path) -> Truth:
    """Read ``users.jsonl``, ``positions.jsonl`` and ``items.jsonl``.

    Raises:
        DataError: a file or a field is missing.
    """
    require_truth(folder)
    items = {
        line["item_id"]: TrueItem(
            item_id=line["item_id"],
            title=line["title"],
            category=line["category"],
            attributes=tuple(line["attributes"]),
        )
        for line in _lines(folder / "items.jsonl", "item_id", "title", "category", "attributes")
    }
    users = {line["user_id"]: line for line in _lines(folder / "users.jsonl", "user_id", "tastes", "switch")}
    tastes = {
        user_id: [Taste(**{name: tuple(values) for name, values in taste.items()}) for taste in line["tastes"]]
        for user_id, line in users.items()
    }
    wanted = ("user_id", "position", "item_id", "is_noise", "meant_item_id", "rating", "reasons", "text")
    positions = {}
    for line in _lines(folder / "positions.jsonl", *wanted):
        user_id, switch = line["user_id"], users[line["user_id"]]["switch"]
        second = switch is not None and line["position"] >= switch
        positions[user_id, line["item_id"]] = TruePosition(
            user_id=user_id,
            position=line["position"],
            item_id=line["item_id"],
            is_noise=line["is_noise"],
            meant=line["meant_item_id"],
            stars=line["rating"],
            opinions=frozenset((_SENTIMENTS[kind], name) for kind, names in line["reasons"].items() for name in names),
            text=line["text"],
            taste=tastes[user_id][int(second)],
        )
    return Truth(items=items, positions=positions)


def _lines(path: Path, *wanted: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines, 1):
        if missing := set(wanted) - set(line):
            raise DataError(
                f"{path.name}, line {number} lacks {', '.join(sorted(missing))}: an older world; write it again with "
                "penchant planted-world"
            )
    return lines
