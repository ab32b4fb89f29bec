"""Reviews in words: natural, first person, 8 to 35 words, naming what the user likes or dislikes about the item."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.landing.planted_world.catalogue import Item, article, lowered
from pipelines.landing.planted_world.tastes import Taste
from pipelines.landing.planted_world.vocabulary import ATTRIBUTES

MIN_WORDS, MAX_WORDS = 8, 35


@dataclass(frozen=True, kw_only=True)
class Review:
    """What was written and why: attributes praised (`liked`), complained of (`disliked`), wanted in vain (`missed`),
    disliked and gladly absent (`avoided`).
    """

    rating: int
    title: str
    text: str
    liked: tuple[str, ...] = ()
    disliked: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()


_OPEN_GLAD = (
    "Really happy with this {noun}.",
    "This {noun} has become a favorite of mine.",
    "I have used this {noun} for {weeks} weeks now.",
    "Bought this {noun} after a long search.",
    "I use this {noun} almost every day.",
    "Just what I was looking for in {a_noun}.",
    "My second {noun} and easily the better one.",
    "This {noun} by {brand} suits me perfectly.",
    "",
)
_OPEN_PLAIN = (
    "I have used this {noun} for {weeks} weeks now.",
    "Bought this {noun} after a long search.",
    "My second {noun} this year.",
    "I ordered this {noun} last month.",
)
_PRAISE = (
    "I love {praise}.",
    "What won me over is {praise}.",
    "{Praise} is exactly what I look for.",
    "{Praise} makes all the difference to me.",
    "For me the best thing is {praise}.",
    "I pay attention to {praise} and was not let down.",
    "I can't say enough about {praise}.",
    "{Praise} sold me on it right away.",
)
_ALSO = (
    "I also like {praise}.",
    "{Praise} is a big plus as well.",
    "On top of that I enjoy {praise}.",
    "And I really appreciate {praise}.",
)
_SHELF = (
    "I can never have enough {shelf} gear.",
    "Anything for my {shelf} hobby makes me smile.",
    "{Shelf} is where most of my money goes.",
    "A good addition to my {shelf} collection.",
)
_BUT = (
    "My one gripe is {complaint}.",
    "Sadly {complaint} bothers me a little.",
    "I could do without {complaint}, though.",
    "I only wish they had fixed {complaint}.",
)
_COMPLAIN = (
    "I can't stand {complaint}.",
    "{Complaint} puts me off completely.",
    "What I dislike is {complaint}.",
    "I regret buying it because of {complaint}.",
    "{Complaint} is just what I try to avoid.",
)
_MISS = (
    "I was hoping for something {adjective}, and this is not it.",
    "I usually want something {adjective}; this is nothing like that.",
    "Next time I will look for something {adjective} again.",
    "I prefer something {adjective} and should have kept to that.",
)
_RELIEF = (
    "Luckily there is nothing {adjective} about it, which I never like.",
    "I avoid anything {adjective}, so this suits me.",
    "Glad it isn't yet another {adjective} one; I dislike those.",
    "I don't want something {adjective}, and this isn't.",
)
_CLOSE_GLAD = (
    "Would buy it again.",
    "Highly recommended.",
    "I told two friends about it.",
    "Worth every cent.",
    "I have no complaints.",
    "It arrived in {days} days.",
    "",
    "",
)
_CLOSE_FAIR = ("It does the job.", "Fine for what it is.", "I will keep it for now.", "An average buy, all in all.")
_CLOSE_SAD = (
    "It went back after {days} days.",
    "Not for me.",
    "I would not buy it again.",
    "I gave it away to a neighbor.",
    "",
)
_GIFT = (
    "I got this {noun} as a gift for my {person}, who seems pleased with it.",
    "Bought this {noun} for my {person}'s birthday; I have no use for one myself.",
    "My {person} asked for this {noun}, so I ordered it. I can't judge it.",
    "A present for my {person}. The {noun} arrived in {days} days and was well packed.",
    "Not for me: my {person} wanted {a_noun} and I only paid for it.",
)
_MISTAKE = (
    "I ordered this {noun} by mistake and it was too late to cancel.",
    "Clicked on the wrong thing and ended up with {a_noun} I don't need.",
    "Someone in the house used my account to buy this {noun}.",
    "I picked up this {noun} on a whim and it has sat in a drawer since.",
)
_OFF = (
    "I tried this {noun} for a change and it isn't my thing.",
    "This {noun} is not the sort of thing that I enjoy.",
    "I gave this {noun} {weeks} weeks and never warmed to it.",
    "Out of curiosity I bought this {noun} by {brand}, and I'm not impressed.",
)
_PEOPLE = (
    "sister",
    "brother",
    "father",
    "mother",
    "nephew",
    "niece",
    "neighbor",
    "colleague",
    "grandson",
    "wife",
    "husband",
)
_TITLES = {
    5: ("Love it", "Perfect for me", "Five stars", "Exactly right", "So glad I bought it", "Excellent {noun}"),
    4: ("Very good", "Good {noun}", "Almost perfect", "Happy with it", "Nice buy"),
    3: ("It's okay", "Mixed feelings", "Average {noun}", "Fine, not great"),
    2: ("Disappointed", "Not what I wanted", "Not for me", "Expected more"),
    1: ("Regret this one", "Waste of money", "Would not buy again", "Wrong {noun} for me"),
}


def write_review(rng: random.Random, item: Item, taste: Taste, is_noise: bool) -> Review:
    """Write the review of `item` by a user of that taste; its stars follow its sentiment, with a few threes."""
    words = _Words(rng, item)
    held = list(item.attributes)
    liked = [name for name in held if name in taste.likes]
    disliked = [name for name in held if name in taste.dislikes]
    rng.shuffle(liked)
    if is_noise:
        return _stray_review(rng, words, taste, disliked)
    if disliked and not liked:
        named = disliked[:1]
        complaint = [words.complaint(_COMPLAIN, name) for name in named]
        text = words.join(_OPEN_PLAIN, complaint, rng.choice(_CLOSE_SAD))
        rating = rng.choice((1, 2, 2))
        return Review(rating=rating, title=words.title(rating), text=text, disliked=tuple(named))
    if disliked:
        both = [words.praise(_PRAISE, liked[0]), words.complaint(_BUT, disliked[0])]
        text = words.join(_OPEN_GLAD, both, rng.choice(_CLOSE_FAIR))
        rating = rng.choice((3, 3, 4))
        return Review(rating=rating, title=words.title(rating), text=text, liked=(liked[0],), disliked=(disliked[0],))
    if liked:
        named = liked[: rng.choice((1, 2, 2))]
        praise = [words.praise(_PRAISE if n == 0 else _ALSO, name) for n, name in enumerate(named)]
        plain = rng.random() < 0.05
        avoided = [rng.choice(taste.dislikes)] if rng.random() < 0.25 else []
        if avoided:
            named = named[:1]
            relief = words.fill(rng.choice(_RELIEF), adjective=ATTRIBUTES[avoided[0]].adjective)
            text = words.join(_OPEN_GLAD, [praise[0], relief])
        else:
            text = words.join(_OPEN_GLAD, praise, rng.choice(_CLOSE_FAIR if plain else _CLOSE_GLAD))
        rating = 3 if plain else rng.choice((4, 5, 5) if len(named) == 1 else (5, 5, 4))
        return Review(rating=rating, title=words.title(rating), text=text, liked=tuple(named), avoided=tuple(avoided))
    missed = [rng.choice(taste.likes)] if rng.random() < 0.4 else []
    wish = words.fill(rng.choice(_MISS), adjective=ATTRIBUTES[missed[0]].adjective) if missed else ""
    fair = bool(missed) or rng.random() < 0.3
    text = words.join(_OPEN_PLAIN, [words.shelf(), wish], rng.choice(_CLOSE_FAIR if fair else _CLOSE_GLAD))
    rating = rng.choice((3, 3, 4)) if fair else rng.choice((4, 4, 5))
    return Review(rating=rating, title=words.title(rating), text=text, missed=tuple(missed))


def _stray_review(rng: random.Random, words: "_Words", taste: Taste, disliked: Sequence[str]) -> Review:
    kind = rng.random()
    if kind < 0.35:
        rating = rng.choice((4, 5, 5, 3))
        return Review(rating=rating, title=words.title(rating), text=words.join(_GIFT))
    if kind < 0.55:
        rating = rng.choice((2, 3, 3))
        return Review(
            rating=rating, title=words.title(rating), text=words.join(_MISTAKE, closing=rng.choice(_CLOSE_SAD))
        )
    rating = rng.choice((1, 2, 2, 3))
    if disliked:
        text = words.join(_OFF, [words.complaint(_COMPLAIN, disliked[0])])
        return Review(rating=rating, title=words.title(rating), text=text, disliked=(disliked[0],))
    missed = rng.choice(taste.likes)
    text = words.join(_OFF, [words.fill(rng.choice(_MISS), adjective=ATTRIBUTES[missed].adjective)])
    return Review(rating=rating, title=words.title(rating), text=text, missed=(missed,))


class _Words:
    """Fills templates for one review."""

    def __init__(self, rng: random.Random, item: Item) -> None:
        self._rng = rng
        noun = lowered(item.noun) if rng.random() < 0.8 else lowered(item.noun.split()[-1])
        self._values = {
            "noun": noun,
            "a_noun": f"{article(noun.capitalize())} {noun}",
            "brand": item.brand,
            "shelf": item.category.name.replace(" & ", " and ").lower(),
            "weeks": rng.choice(("two", "three", "four", "six", "eight", "ten")),
            "days": rng.choice(("two", "three", "four", "five", "six", "nine")),
            "person": rng.choice(_PEOPLE),
        }
        self._values["Shelf"] = self._values["shelf"].capitalize()

    def fill(self, template: str, **more: str) -> str:
        return template.format(**self._values, **more)

    def praise(self, templates: Sequence[str], name: str) -> str:
        phrase = self._rng.choice(ATTRIBUTES[name].praised)
        return self.fill(self._rng.choice(templates), praise=phrase, Praise=phrase[0].upper() + phrase[1:])

    def complaint(self, templates: Sequence[str], name: str) -> str:
        phrase = self._rng.choice(ATTRIBUTES[name].complained)
        return self.fill(self._rng.choice(templates), complaint=phrase, Complaint=phrase[0].upper() + phrase[1:])

    def shelf(self) -> str:
        return self.fill(self._rng.choice(_SHELF))

    def title(self, rating: int) -> str:
        return self.fill(self._rng.choice(_TITLES[rating]))

    def join(self, openings: Sequence[str], body: Sequence[str] = (), closing: str = "") -> str:
        """The body with an opening and a closing as far as the word limit allows, and a plain fact when too short."""
        parts = [sentence for sentence in body if sentence]
        opening, closing = self.fill(self._rng.choice(openings)), self.fill(closing)
        if _words([opening, *parts]) <= MAX_WORDS:
            parts = [opening, *parts]
        if _words([*parts, closing]) <= MAX_WORDS:
            parts = [*parts, closing]
        if _words(parts) < MIN_WORDS:
            parts.append(self.fill("I have owned this {noun} for about {weeks} weeks."))
        return " ".join(part for part in parts if part)


def _words(sentences: Sequence[str]) -> int:
    return len(" ".join(sentences).split())
