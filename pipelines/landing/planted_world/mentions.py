"""Which planted attributes a sentence speaks of, told by the words in which the shop's people speak of them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from schemas.words import content_stems, words

# "not having any cables" is not about cables.
_NEGATIONS = frozenset(("no", "not", "never", "without"))


def stems_of(text: str) -> frozenset[str]:
    """Content stems of a text, negations among them."""
    return content_stems(text) | ({word.lower() for word in words(text)} & _NEGATIONS)


def _phrases() -> Mapping[str, tuple[frozenset[str], ...]]:
    found = {}
    for name, attribute in ATTRIBUTES.items():
        said = (attribute.adjective, attribute.label, *attribute.praised, *attribute.complained)
        found[name] = tuple(dict.fromkeys(stems_of(phrase) for phrase in said))
    return found


_PHRASES = _phrases()
_USERS = Counter(stem for phrases in _PHRASES.values() for stem in frozenset().union(*phrases))
_OWN = {stem for stem, attributes in _USERS.items() if attributes == 1} - _NEGATIONS


def named_attributes(stems: Iterable[str]) -> frozenset[str]:
    """Names of the attributes that a text with these stems (see `stems_of`) speaks of.

    A phrase of the vocabulary counts when all its words are there, or half of them with one that no other attribute's
    phrases have. The phrase with the most words there explains them; what is left may speak of another attribute.
    """
    rest = set(stems)
    found: set[str] = set()
    while True:
        fits = [
            (len(phrase & rest), len(phrase & rest) / len(phrase), name, phrase)
            for name, phrases in _PHRASES.items()
            for phrase in phrases
            if name not in found and _fits(phrase, rest)
        ]
        if not fits:
            return frozenset(found)
        _, _, name, phrase = max(fits, key=lambda fit: fit[:3])
        found.add(name)
        # Other ways to say the same are no second attribute.
        rest -= (phrase | (_OWN & frozenset().union(*_PHRASES[name]))) - _NEGATIONS


def _fits(phrase: frozenset[str], rest: set[str]) -> bool:
    there = phrase & rest
    if not there or not phrase & _NEGATIONS <= there:
        return False
    return there == phrase or (2 * len(there) >= len(phrase) and bool(there & _OWN))
