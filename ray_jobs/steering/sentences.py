"""Parse a sentence into wishes and refusals.

"Prefers quiet, compact things. Avoids wood." wants *quiet* and *compact* and refuses *wood*, and so does "something
quiet and compact, anything but wood". A clause is read from left to right: a cue word (prefers, without, not ...)
decides whether the phrases after it are wanted or refused. A verb of refusal ("avoids a, b and c") is valid to the end
of its clause, a negation ("quiet, not heavy, compact") to the next comma.
"""

import re
from dataclasses import dataclass
from typing import Literal

from schemas.columns import MOST_CHARACTERS
from schemas.words import FUNCTION_WORDS, listed

MOST_PHRASES = 32

Meaning = Literal["wanted", "refused", "nothing"]


@dataclass(frozen=True)
class Wishes:
    """Phrases that a sentence wants and refuses, in order, without repetition."""

    wanted: tuple[str, ...]
    refused: tuple[str, ...]


_NOT = (
    r"(?:do|does|did|would|will|could|can|should|must|is|are|was|need|has|have)(?:n'?t| not)|cannot|can't|won'?t|"
    r"never|not"
)
_LIKE = (
    r"prefer\w*|lik(?:e|es|ed|ing)|love[sd]?|want\w*|wish\w*(?: for)?|need\w*|enjoy\w*|favou?rs?|appreciate\w*|"
    r"look(?:s|ing)? for|search(?:es|ing)? for|keen on|fond of|fan of|care[sd]? (?:about|for)|into"
)
_SURELY_REFUSED = (
    r"avoid\w*|exclud\w+|refus\w+|reject\w*|dislik\w+|hat(?:e|es|ed|ing)|detest\w*|can'?t stand|cannot stand|"
    r"tired of|sick of|fed up with|allergic to|bothered by|put off by|annoyed by|(?:keep|stay) away from|"
    r"get rid of|stop(?: \w+ing)?(?: me)?|skip"
)
_REFUSED = (
    r"without|no|nothing|none of|neither|nor|except(?: for)?|other than|rather than|instead of|less|free of|minus|"
    r"fewer|lacks?|lacking|reduced|too|non"
)
_NEUTRAL = r"(?:do|does)(?:n'?t| not) mind|not bothered (?:by|about)|(?:do|does)(?:n'?t| not) care(?: about)?"
_ONLY = (
    r"not only|nothing but|no one but|not just|"
    rf"(?:{_NOT}|no)(?: \w+){{0,2}} without|avoids? (?:every|any)thing (?:but|except)"
)
_FILLED = r"(?:\s+(?:really|particularly|much|to|be|have|get|any))*"
# Longer cues come first: "do not mind" is no refusal, "don't like" is one.
_CUES = re.compile(
    rf"\b(?:(?P<nothing>{_NEUTRAL})|(?P<only>{_ONLY})|(?P<disliked>(?:{_NOT}){_FILLED}\s+(?:{_LIKE}))"
    rf"|(?P<twice>(?:{_NOT})(?:\s+to)?\s+(?:{_SURELY_REFUSED}))|(?P<verb>{_SURELY_REFUSED})"
    rf"|(?P<bare>(?:{_NOT})(?:\s+too)?|{_REFUSED})|(?P<wanted>{_LIKE}|more|only|with|must be|should be|but))\b",
    re.IGNORECASE,
)
_TURNING = re.compile(
    r"[,?]?\s{1,4}(?:(?:is|are)(?:n'?t| not)\s{1,4}(?:for me|my thing|my taste)|no,? thanks?(?: you)?)\b",
    re.IGNORECASE,
)
"""Refusals that follow their phrase: "wood is not for me", "wood? no thanks"."""
_MEANT = re.compile(r"[\w' -]*")
_FREE = re.compile(r"\b(\w+)-free\b", re.IGNORECASE)
_NONE = re.compile(r"\W*+(?:none|no preferences?|nothing|no|n/?a)?\W*+(?:thanks?(?: you)?)?\W*+", re.IGNORECASE)
_ANYTHING_BUT = re.compile(
    r"(?<!avoid )(?<!avoids )\b(?:any|every)(?:thing|one|body)?\s*(?:but|except)\b|\ball but\b", re.IGNORECASE
)
_CLAUSES = re.compile(
    r"[.;!?\n]{1,9}(?:\s|$)|,?\s{1,4}\b(?:because|since|so that|so|although|though|which|where|when|while|however)\b\s",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[,;/&+]|\band\b|\bor\b|\bas well as\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_FILLER = FUNCTION_WORDS | listed(
    """thing things item items product products stuff kind kinds type types sort sorts ones please really quite rather
    too something anything everything nothing preferably ideally maybe perhaps good nice great i'm i'd i've it's that's
    im id looking"""
)


def read_sentence(text: str) -> Wishes:
    """Phrases that `text` wants and refuses; none for a text such as "None"."""
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS].rpartition(" ")[0]
    text = text.replace("\u2019", "'")
    if _NONE.fullmatch(text):
        return Wishes((), ())
    text = _FREE.sub(r"without \1,", _turned(text))
    found: dict[str, Meaning] = {}
    for clause in _CLAUSES.split(_ANYTHING_BUT.sub("except", text)):
        _read_clause(clause or "", found)
    phrases = list(found.items())[:MOST_PHRASES]
    return Wishes(
        tuple(phrase for phrase, meaning in phrases if meaning == "wanted"),
        tuple(phrase for phrase, meaning in phrases if meaning == "refused"),
    )


def _turned(text: str) -> str:
    """`text` with refusals that follow their phrase put before it: "wood? no thanks" becomes "avoid wood."."""
    parts, end = [], 0
    for turning in _TURNING.finditer(text):
        before = text[end : turning.start()]
        meant = _MEANT.match(before[::-1])
        kept = len(before) - (meant.end() if meant else 0)
        if kept < len(before):
            parts += [before[:kept], "avoid ", before[kept:], "."]
        else:
            parts += [text[end : turning.end()]]
        end = turning.end()
    return "".join([*parts, text[end:]])


_MEANINGS: dict[str, Meaning] = {
    "verb": "refused",
    "disliked": "refused",
    "bare": "refused",
    "nothing": "nothing",
}


def _read_clause(clause: str, found: dict[str, Meaning]) -> None:
    meaning: Meaning = "wanted"
    until_comma = False
    start = 0
    for cue in [*_CUES.finditer(clause), None]:
        segment = clause[start : len(clause) if cue is None else cue.start()]
        head, comma, tail = segment.partition(",") if until_comma else (segment, "", "")
        _keep(head, meaning, found)
        if comma:
            meaning, until_comma = "wanted", False
            _keep(tail, meaning, found)
        if cue is None:
            return
        start = cue.end()
        kind = cue.lastgroup
        if kind == "wanted" and until_comma and cue.group().lower() in ("more", "with", "into") and not segment.strip():
            continue  # "not more", "no longer with": the negation stays valid
        meaning = _MEANINGS.get(kind or "", "wanted")
        until_comma = kind in ("bare", "disliked", "nothing")


def _keep(segment: str, meaning: Meaning, found: dict[str, Meaning]) -> None:
    for part in _PARTS.split(segment):
        words = _WORD.findall(part)
        while words and words[0].lower() in _FILLER:
            words.pop(0)
        while words and words[-1].lower() in _FILLER:
            words.pop()
        if any(character.isalpha() for word in words for character in word):
            phrase = " ".join(words).lower()
            # "quiet but not quiet" wants nothing.
            found[phrase] = meaning if found.get(phrase, meaning) == meaning else "nothing"
