"""Tastes of the planted shop's users, and how they choose items."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.landing.planted_world.catalogue import Item
from pipelines.landing.planted_world.vocabulary import CATEGORIES

CATEGORY_WEIGHT = 1.5
LIKE_WEIGHT = 1.0
DISLIKE_WEIGHT = 2.0
ACCESSORY_BONUS = 2.0


@dataclass(frozen=True, kw_only=True)
class Taste:
    """Liked categories, and liked and disliked attributes, by name, in one phase."""

    categories: tuple[str, ...]
    likes: tuple[str, ...]
    dislikes: tuple[str, ...]

    def match(self, item: Item) -> float:
        """How well an item suits the taste: above 0 within it, at most 0 outside."""
        return self.match_of(item.category.name, item.attributes)

    def match_of(self, category: str, attributes: Sequence[str]) -> float:
        """`match` of an item with this category and these attributes."""
        held = set(attributes)
        score = CATEGORY_WEIGHT * (category in self.categories)
        score += LIKE_WEIGHT * len(held & set(self.likes))
        return score - DISLIKE_WEIGHT * len(held & set(self.dislikes))


def draw_taste(rng: random.Random, previous: Taste | None = None) -> Taste:
    """Draw a taste of two categories, three likes and two dislikes; categories and likes differ from `previous`.

    Likes are drawn from the attributes of the liked categories, so that some items match the taste.
    """
    old_categories, old_likes = (previous.categories, previous.likes) if previous else ((), ())
    shelves = rng.sample([c for c in CATEGORIES if c.name not in old_categories], 2)
    offered = dict.fromkeys(name for shelf in shelves for name in shelf.attributes)
    pool = [name for name in offered if name not in old_likes]
    likes = rng.sample(pool, 3)
    dislikes = rng.sample([name for name in pool if name not in likes], 2)
    return Taste(categories=tuple(s.name for s in shelves), likes=tuple(likes), dislikes=tuple(dislikes))


def choose(
    rng: random.Random, items: Sequence[Item], taste: Taste, history: Sequence[Item], temperature: float
) -> Item:
    """Draw the next item by taste, popularity and the last purchase; never one that the user has.

    p(item) ~ popularity * exp((match + bonus) / temperature); accessories of the category whose main item was bought
    last have the bonus.
    """
    owned = {item.item_id for item in history}
    last = history[-1] if history else None
    weights = []
    for item in items:
        if item.item_id in owned:
            weights.append(0.0)
            continue
        score = taste.match(item)
        if last and not last.accessory and item.accessory and item.category.name == last.category.name:
            score += ACCESSORY_BONUS
        weights.append(item.popularity * math.exp(score / temperature))
    return rng.choices(items, weights)[0]


def stray(rng: random.Random, items: Sequence[Item], taste: Taste, history: Sequence[Item]) -> Item:
    """Draw an item outside the taste, uniformly: of no liked category and without a liked attribute."""
    owned = {item.item_id for item in history}
    free = [item for item in items if item.item_id not in owned]
    outside = [
        item
        for item in free
        if item.category.name not in taste.categories and not set(item.attributes) & set(taste.likes)
    ]
    return rng.choice(outside or [item for item in free if taste.match(item) <= 0] or free)
