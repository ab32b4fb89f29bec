"""The vocabulary of the planted shop: attributes with phrases about them, categories, brands."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A property that an item shows in its title or description and that a user may like or dislike.

    Args:
        name: its id in the truth files.
        adjective: fits "something ...".
        label: its form in a title.
        described: sentences of a product description.
        praised: singular noun phrases of someone who likes it.
        complained: singular noun phrases of someone who does not.
    """

    name: str
    adjective: str
    label: str
    described: tuple[str, ...]
    praised: tuple[str, ...]
    complained: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Category:
    """A category of the shop.

    Args:
        mains, accessories: product nouns; accessories tend to be bought right after a main item of the category.
        attributes: names of attributes that main items may carry.
        accessory_attributes: names of attributes that accessories may carry.
        price: typical price of a main item.
    """

    name: str
    parent: str
    brands: tuple[str, ...]
    mains: tuple[str, ...]
    accessories: tuple[str, ...]
    attributes: tuple[str, ...]
    accessory_attributes: tuple[str, ...]
    price: float


def _read() -> tuple[dict[str, Attribute], tuple[Category, ...]]:
    with Path(__file__).with_name("vocabulary.toml").open("rb") as file:
        found = tomllib.load(file)
    attributes = {name: Attribute(name=name, **_fields(raw)) for name, raw in found["attributes"].items()}
    return attributes, tuple(Category(**_fields(raw)) for raw in found["categories"])


def _fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


ATTRIBUTES, CATEGORIES = _read()
