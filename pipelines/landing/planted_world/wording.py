"""Texts of reviews: first person, 8 to 35 words, with what the user likes or dislikes about the item."""

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.landing.planted_world.catalogue import Item, article, lowered
from pipelines.landing.planted_world.tastes import Taste
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES

MIN_WORDS, MAX_WORDS = 8, 35


@dataclass(frozen=True, kw_only=True)
class Review:
    """A review and its reasons: attributes praised (`liked`), criticised (`disliked`), wanted but absent (`missed`), or
    unwanted and absent (`avoided`).
    """

    rating: int
    title: str
    text: str
    liked: tuple[str, ...] = ()
    disliked: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()


_SENTENCES: Mapping[str, Sequence[str]] = tomllib.loads(Path(__file__).with_name("wording.toml").read_text("utf-8"))


def write_review(rng: random.Random, item: Item, taste: Taste, is_noise: bool) -> Review:
    """Write the review of `item` by a user with that taste; its stars follow its sentiment, with a few threes."""
    words = _Words(rng, item)
    held = list(item.attributes)
    liked = [name for name in held if name in taste.likes]
    disliked = [name for name in held if name in taste.dislikes]
    rng.shuffle(liked)
    if is_noise:
        return _stray_review(rng, words, taste, disliked)
    if disliked and not liked:
        text = words.join("open_plain", [words.complaint("complain", disliked[0])], "close_sad")
        rating = rng.choice((1, 2, 2))
        return Review(rating=rating, title=words.title(rating), text=text, disliked=(disliked[0],))
    if disliked:
        both = [words.praise("praise", liked[0]), words.complaint("but", disliked[0])]
        text = words.join("open_glad", both, "close_fair")
        rating = rng.choice((3, 3, 4))
        return Review(rating=rating, title=words.title(rating), text=text, liked=(liked[0],), disliked=(disliked[0],))
    if liked:
        named = liked[: rng.choice((1, 2, 2))]
        praise = [words.praise("praise" if n == 0 else "also", name) for n, name in enumerate(named)]
        plain = rng.random() < 0.05
        avoided = [rng.choice(taste.dislikes)] if rng.random() < 0.25 else []
        if avoided:
            named = named[:1]
            text = words.join("open_glad", [praise[0], words.mention("relief", avoided[0])])
        else:
            text = words.join("open_glad", praise, "close_fair" if plain else "close_glad")
        rating = 3 if plain else rng.choice((4, 5, 5) if len(named) == 1 else (5, 5, 4))
        return Review(rating=rating, title=words.title(rating), text=text, liked=tuple(named), avoided=tuple(avoided))
    missed = [rng.choice(taste.likes)] if rng.random() < 0.4 else []
    wish = words.mention("miss", missed[0]) if missed else ""
    fair = bool(missed) or rng.random() < 0.3
    text = words.join("open_plain", [words.fill("shelf"), wish], "close_fair" if fair else "close_glad")
    rating = rng.choice((3, 3, 4)) if fair else rng.choice((4, 4, 5))
    return Review(rating=rating, title=words.title(rating), text=text, missed=tuple(missed))


def _stray_review(rng: random.Random, words: "_Words", taste: Taste, disliked: Sequence[str]) -> Review:
    kind = rng.random()
    if kind < 0.35:
        rating = rng.choice((4, 5, 5, 3))
        return Review(rating=rating, title=words.title(rating), text=words.join("gift"))
    if kind < 0.55:
        rating = rng.choice((2, 3, 3))
        return Review(rating=rating, title=words.title(rating), text=words.join("mistake", closing="close_sad"))
    rating = rng.choice((1, 2, 2, 3))
    if disliked:
        text = words.join("off", [words.complaint("complain", disliked[0])])
        return Review(rating=rating, title=words.title(rating), text=text, disliked=(disliked[0],))
    missed = rng.choice(taste.likes)
    text = words.join("off", [words.mention("miss", missed)])
    return Review(rating=rating, title=words.title(rating), text=text, missed=(missed,))


class _Words:
    """Sentences of one review, drawn by their kind in ``wording.toml``."""

    def __init__(self, rng: random.Random, item: Item) -> None:
        self._rng = rng
        noun = lowered(item.noun) if rng.random() < 0.8 else lowered(item.noun.split()[-1])
        shelf = item.category.name.replace(" & ", " and ").lower()
        self._values = {
            "noun": noun,
            "a_noun": f"{article(noun.capitalize())} {noun}",
            "brand": item.brand,
            "shelf": shelf,
            "Shelf": shelf.capitalize(),
            "weeks": rng.choice(("two", "three", "four", "six", "eight", "ten")),
            "days": rng.choice(("two", "three", "four", "five", "six", "nine")),
            "person": rng.choice(_SENTENCES["people"]),
        }

    def fill(self, kind: str, **more: str) -> str:
        return str(self._rng.choice(_SENTENCES[kind])).format(**self._values, **more)

    def praise(self, kind: str, name: str) -> str:
        phrase = self._rng.choice(ATTRIBUTES[name].praised)
        return self.fill(kind, praise=phrase, Praise=phrase[0].upper() + phrase[1:])

    def complaint(self, kind: str, name: str) -> str:
        phrase = self._rng.choice(ATTRIBUTES[name].complained)
        return self.fill(kind, complaint=phrase, Complaint=phrase[0].upper() + phrase[1:])

    def mention(self, kind: str, name: str) -> str:
        return self.fill(kind, adjective=ATTRIBUTES[name].adjective)

    def title(self, rating: int) -> str:
        return self.fill(f"title_{rating}")

    def join(self, opening: str, body: Sequence[str] = (), closing: str = "") -> str:
        """The body, with opening and closing if the word limit allows, and a neutral sentence if it is too short."""
        parts = [sentence for sentence in body if sentence]
        end = self.fill(closing) if closing else ""
        begin = self.fill(opening)
        if _count([begin, *parts]) <= MAX_WORDS:
            parts = [begin, *parts]
        if _count([*parts, end]) <= MAX_WORDS:
            parts = [*parts, end]
        if _count(parts) < MIN_WORDS:
            parts.append("I have owned this {noun} for about {weeks} weeks.".format(**self._values))
        return " ".join(part for part in parts if part)


def _count(sentences: Sequence[str]) -> int:
    return len(" ".join(sentences).split())
