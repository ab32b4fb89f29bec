"""Antonyms.

Sentence encoders place antonyms close together ("heavy" and "lightweight"). Treated as a synonym, a refusal of what is
heavy would demote what is light, so common pairs are declared here. Unlisted pairs are separated only by the encoder.
Words whose stem has another common meaning (light, tiny, roomy) are left out.
"""

from collections.abc import Mapping

from schemas.words import stem

_PAIRS = (
    ("heavy weighty", "lightweight featherweight"),
    ("big large huge bulky oversized spacious giant", "small compact mini little miniature"),
    ("loud noisy", "quiet silent noiseless whisper"),
    ("cheap inexpensive affordable", "expensive pricey costly"),
    ("wired corded", "wireless cordless"),
    ("hard firm rigid stiff", "soft flexible bendable"),
    ("rigid", "foldable folding collapsible"),
    ("fixed", "adjustable"),
    ("thick chunky", "thin slim"),
    ("wide broad", "narrow"),
    ("long tall", "short"),
    ("deep", "shallow"),
    ("fast quick rapid", "slow"),
    ("simple easy effortless", "complicated complex difficult"),
    ("hot warm", "cold cool"),
    ("wet damp", "dry"),
    ("dark dim", "bright"),
    ("old vintage antique retro", "new modern contemporary"),
    ("smooth", "rough coarse"),
    ("matte matt", "glossy shiny"),
    ("tight", "loose baggy"),
    ("strong powerful sturdy solid durable", "weak flimsy fragile"),
    ("beginner novice starter", "professional advanced expert"),
    ("indoor", "outdoor"),
    ("manual", "automatic"),
    ("acoustic", "electric"),
    ("plain minimalist", "ornate flashy"),
    ("natural organic", "synthetic artificial"),
    ("disposable", "reusable"),
    ("sweet", "sour bitter"),
    ("mild", "spicy"),
    ("men male", "women female"),
    ("left", "right"),
    ("day", "night"),
)


def _opposites() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for one, other in _PAIRS:
        for words, opposite in ((one, other), (other, one)):
            for word in words.split():
                key = stem(word)
                found[key] = found.get(key, frozenset()) | set(map(stem, opposite.split()))
    return found


_OPPOSITES = _opposites()


def opposites_of(stems: list[str]) -> frozenset[str]:
    """Stems of antonyms of `stems`, without `stems` themselves."""
    words = {word.removesuffix(ending) for word in stems for ending in ("", "er", "ier", "est", "iest")}
    return frozenset().union(*(_OPPOSITES.get(word, frozenset()) for word in words)) - frozenset(stems)
