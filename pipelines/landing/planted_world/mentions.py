"""Find the planted attributes that a sentence mentions, by the phrases of the vocabulary."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipelines.landing.planted_world.vocabulary import ATTRIBUTES
from schemas.words import content_stems, words

# "not having any cables" is not about cables.
_NEGATIONS = frozenset(("no", "not", "never", "without"))


def stems_of(text: str) -> frozenset[str]:
    """Content stems of a text, including negations."""
    return content_stems(text) | ({word.lower() for word in words(text)} & _NEGATIONS)


def compressed(phrase: str) -> str:
    """A phrase without stop words, so that two fit into a line."""
    kept = [word for word in words(phrase) if content_stems(word) or word.lower() in _NEGATIONS]
    return " ".join(kept)


_PHRASES: Mapping[str, Sequence[frozenset[str]]] = {
    name: [*dict.fromkeys(map(stems_of, (one.adjective, one.label, *one.praised, *one.complained)))]
    for name, one in ATTRIBUTES.items()
}
_ATTRIBUTES_OF = Counter(stem for phrases in _PHRASES.values() for stem in frozenset().union(*phrases))
_OWN = {stem for stem, attributes in _ATTRIBUTES_OF.items() if attributes == 1} - _NEGATIONS


def named_attributes(stems: Iterable[str]) -> frozenset[str]:
    """Names of the attributes that a text with these stems (see `stems_of`) mentions.

    A phrase of the vocabulary counts when all its stems are present, or half of them with one that is in no other
    attribute's phrases. The phrase with most stems present takes them; the rest may mention another attribute.
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
        # Other words for this attribute do not mention a second one.
        rest -= (phrase | (_OWN & frozenset().union(*_PHRASES[name]))) - _NEGATIONS


def _fits(phrase: frozenset[str], rest: set[str]) -> bool:
    there = phrase & rest
    if not there or not phrase & _NEGATIONS <= there:
        return False
    return there == phrase or (2 * len(there) >= len(phrase) and bool(there & _OWN))
