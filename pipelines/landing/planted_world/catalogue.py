"""Items of the planted shop."""

import random
from dataclasses import dataclass

from pipelines.landing.planted_world.vocabulary import ATTRIBUTES, CATEGORIES, Category

_MODELS = (
    "Aster", "Birch", "Cobalt", "Delta", "Fjord", "Gale", "Heron", "Iris", "Juno",
    "Kestrel", "Linden", "Mosaic", "Nimbus", "Onyx", "Piper", "Quill", "Rook", "Sable",
)  # fmt: skip
_CONTRARY = ({"budget_price", "premium_build"}, {"bright_tone", "warm_tone"})
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item; `popularity` is its Zipf weight, 1 for the most popular."""

    item_id: str
    title: str
    noun: str
    brand: str
    category: Category
    accessory: bool
    attributes: tuple[str, ...]
    price: float
    description: tuple[str, ...]
    popularity: float


def article(noun: str) -> str:
    """The indefinite article of a product noun."""
    return "an" if noun[0] in "AEIO" or noun.startswith("LED") else "a"


def lowered(noun: str) -> str:
    """A product noun in lower case, except acronyms."""
    return " ".join(word if word.isupper() else word.lower() for word in noun.split())


def make_items(rng: random.Random, count: int, zipf: float) -> list[Item]:
    """Draw `count` items, evenly over the categories, a third of them accessories.

    Args:
        zipf: exponent of the popularity, weight = rank ** -zipf.
    """
    ranks = rng.sample(range(1, count + 1), count)
    items: list[Item] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    taken: set[str] = set()
    for index in range(count):
        category = CATEGORIES[index % len(CATEGORIES)]
        accessory = (index // len(CATEGORIES)) % 3 == 2
        allowed = category.accessory_attributes if accessory else category.attributes
        for _ in range(50):  # prefer combinations that are new; repeat one only when many are taken
            noun = rng.choice(category.accessories if accessory else category.mains)
            attributes = tuple(rng.sample(allowed, rng.choice((2, 3) if accessory else (2, 3, 3, 4))))
            clash = any(pair <= set(attributes) for pair in _CONTRARY)
            if not clash and (noun, frozenset(attributes)) not in seen:
                break
        seen.add((noun, frozenset(attributes)))
        item_id = "B0" + "".join(rng.choices(_LETTERS, k=8))
        while item_id in taken:
            item_id = "B0" + "".join(rng.choices(_LETTERS, k=8))
        taken.add(item_id)
        brand = rng.choice(category.brands)
        model = f"{rng.choice(_MODELS)} {rng.randint(2, 99)}"
        shown = [ATTRIBUTES[name].label for name in attributes[:2]]
        title = rng.choice((f"{brand} {model} {' '.join(shown)} {noun}", f"{brand} {' '.join(shown)} {noun} ({model})"))
        factor = rng.uniform(0.7, 1.3) * (0.25 if accessory else 1.0)
        factor *= 0.6 if "budget_price" in attributes else 1.7 if "premium_build" in attributes else 1.0
        introduction = f"The {model} is {article(noun)} {lowered(noun)} by {brand}."
        opening = rng.choice((introduction, f"{brand} presents the {model} {lowered(noun)}."))
        items.append(
            Item(
                item_id=item_id,
                title=title,
                noun=noun,
                brand=brand,
                category=category,
                accessory=accessory,
                attributes=attributes,
                price=round(category.price * factor) - 0.01,
                description=(opening, *(rng.choice(ATTRIBUTES[name].described) for name in attributes)),
                popularity=ranks[index] ** -zipf,
            )
        )
    return items
