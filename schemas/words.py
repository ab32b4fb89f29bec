"""Words and stems of sentences, and the similarity of sets of stems."""

import re

_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z]+)?")


def listed(text: str) -> frozenset[str]:
    """The words of a text, split at white space."""
    return frozenset(text.split())


FUNCTION_WORDS = listed(
    """a about above after again all also although always am an and any anything are as at back be because been before
    being both but by can cannot could did do does doing don done down each else ever every few for from further get
    gets getting go goes going got had has have having he her here hers him his how however i if in into is it its just
    let like ll made make makes many may me might mine more most much must my never no nor not now of off often on once
    one ones only onto or other our ours out over own really same see seem she should so some something still such than
    that the their them then there these they this those though through to too under until up upon us use used uses
    using ve very want wants was way we well were what when where which while who whom whose why will with within
    without would yet you your yours"""
)
_EMPTY_PRAISE = listed(
    """amazing awesome awful bad best better brand brands buy choice cool decent everything excellent fantastic
    favorite favourite fine good great high item items kind liked likes lot love loved lovely loves nice okay
    perfect poor prefer prefers avoid avoids product products purchase quality review reviews second star stars
    stuff super terrible thing things top type types worse worst"""
)


def stem(word: str) -> str:
    """A crude stem, enough to match plural and verb forms of a word."""
    word = word.lower().split("'")[0]
    for ending in ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return word


def words(text: str) -> list[str]:
    """The words as written; typographic apostrophes become plain ones."""
    return _WORD.findall(text.replace("\u2019", "'"))


def content_stems(text: str) -> frozenset[str]:
    """Stems of the content words: without function words, empty praise and single letters."""
    return frozenset(
        stem(word)
        for word in words(text)
        if len(word) > 1 and word.lower().split("'")[0] not in FUNCTION_WORDS and word.lower() not in _EMPTY_PRAISE
    )


def similarity(left: frozenset[str], right: frozenset[str]) -> float:
    """Overlap coefficient of two sets of stems: shared stems over the smaller set; 0 when one is empty."""
    if not left or not right:
        return 0.0
    return len(left & right) / min(len(left), len(right))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared stems over all stems; 0 when both are empty."""
    union = left | right
    return len(left & right) / len(union) if union else 0.0
