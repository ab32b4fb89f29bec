"""Finds the words of a review that describe the item, and whether they are denied, unwanted or missed.

There is no parser. A word describes the item if it occurs outside phrases that only name it ("this camp stove") and is
not about buying, giving, people, time or the writer's feelings. Its context shows whether it is denied ("without a
cable"), unwanted ("my one gripe is") or missed ("next time I will look for").
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas.words import content_stems, listed, words

_LONGEST_NAME = 3
_POINTING = frozenset(("this", "these", "my"))
_DETERMINERS = frozenset(("a", "an", "another", "the", "your", *_POINTING))
_ORDINALS = frozenset(("first", "second", "third", "new", "old", "other"))
# The part of a title after the item's name.
_TITLE_TAIL = re.compile(r"[,(;:|/\[]| - |\b(?:by|for|with)\b", re.IGNORECASE)

# Words about buying, giving, other people and the writer.
_OCCASIONS = listed(
    """accident account addition attention aunt baby birthday boyfriend brother buyer cancel cent change child
    children christmas colleague collection complain complaint compliment cousin curiosity customer dad daughter
    difference dislike enjoy expect expectation experience family father fault feedback five four friend fun gear
    gift girlfriend granddaughter grandson gripe guest help hobby holiday home house husband idea important issue
    judge kid lot luck lucky mind mistake mom mother neighbor neighbour nephew niece night number opinion
    option others owner parent people person pleasure plus point present problem purpose rating reason recommend
    recommendation regret research result sake search sense sister six smile son sort spouse ten three trouble two
    use user visit wait waste whim wife winner wish woman word world worry wrong"""
)
# Feelings that name no property; `content_stems` already omits empty praise.
_FEELINGS = listed(
    """absolute addictive adequate appalling average beautiful brilliant crap delight delightful different
    disappoint disappointed disappointing disappointment easily exact excellent exceptional extreme fabulous fair
    favorable first garbage glad gorgeous happy horrible ideal impressive incredible interesting junk likable
    lovely luckily main mediocre need obvious outstanding overall pleasant pleased pleasing possible pretty proper real
    remarkable ridiculous sad sadly satisfied satisfying several simply special specific spectacular standard
    stunning substandard suit suitable superb sure terrific total typical unfortunately unique unnecessary
    unpleasant useful useless usual various weird whole wonderful"""
)
# Aspects that need a word of description: "the compact size", but not "the best size".
_ASPECTS = frozenset().union(
    *map(content_stems, listed("aspect character color colour design feature kind look shape size sound style"))
)
_TIMES = listed("day fact hour minute month time today week year yesterday")
_ENDINGS = ("s", "ed", "d", "ing")

_DENIALS = listed(
    """no not never without hardly barely nothing none neither nor lack lacks lacking less fewer minimal cannot cant
    dont doesnt didnt isnt wasnt arent werent wont wouldnt couldnt shouldnt havent hasnt hadnt aint"""
)
_CLAUSE_ENDS = listed("but because so although though yet while whereas and which who")
# "I can't say enough about the bass" is no denial.
_PRAISING_DENIAL = re.compile(
    r"\b(?:can|could)(?: ?not|n?'?t) (?:say|praise|get|ask|recommend|go|beat|be beat|stand|bear)\b|"
    r"\bd(?:o|id|oes)(?: not|n't) (?:really )?(?:like|enjoy|care for|love)\b|"
    r"\b(?:not|never|no|n't|nothing)(?: (?:be|been|have|had|a|any))*"
    r" (?:let down|disappoint\w*|complain\w*|regret\w*|problems?|issues?|doubts?|only|just|enough)\b",
    re.IGNORECASE,
)
# What follows a word that describes an action: "easy to clean", "how flat it folds".
_DEED = re.compile(r"(?:(?:it|this|that|they) )?(?:(?:is|was|are|were) )?to (\w+)", re.IGNORECASE)
_HOW_IT_DOES = re.compile(
    r"(?:it|this|they) (?!(?:is|was|are|were|feels?|felt|gets?|looks?|looked|seems?|smells?|sounds?|stays?|tastes?)\b)"
    r"(\w+)",
    re.IGNORECASE,
)
# Clauses about what the writer does not want.
_UNWANTED = re.compile(
    r"\b(?:avoid\w*|bothers?|can(?:'t|not) (?:stand|bear)|complaint is|could do without|dislik\w*|downside|drawback|"
    r"d(?:o|id|oes)(?: not|n't) (?:really )?(?:like|enjoy|care|love|need|want)|except|gripe|hat(?:e|es|ed)|issue is|"
    r"(?:better|instead|other|rather) (?:of|than)|never lik\w*|no more|not another|nothing like|problem is|"
    r"puts me off|sadly|tired of|unfortunately|unlike|(?:only|just|do) wish|"
    r"(?:is|was|are|were) ?n[o']t(?! (?:disappoint\w*|having|it|let down|needing)\b))\b",
    re.IGNORECASE,
)
# Clauses about what the writer wants but did not get.
_MISSED = re.compile(
    r"\b(?:expect\w*|hop(?:ed|ing)|i(?: usually| always| normally)? (?:like|love|prefer|want|need)|instead|looking for|"
    r"look for|next time|should have|supposed|thought|usually|wanted|wish\w*|would have|would rather)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Statements:
    """Stems of a review's words by what they say.

    Args:
        properties: describe the item, in any sense.
        liked, disliked: properties in a clause that does not make them unwanted, or missed, respectively.
        plain: properties without a denial before them.
        names: name the item, in the review, its title or category, or name an aspect.
    """

    properties: frozenset[str]
    liked: frozenset[str]
    disliked: frozenset[str]
    plain: frozenset[str]
    names: frozenset[str]


def statements_of(review: str, *, title: str = "", categories: Sequence[str] = ()) -> Statements:
    """Read a review by sentences.

    Args:
        title, categories: of the reviewed item, which name the kind of item; empty if unknown.
    """
    head = _head(title)
    kinds = frozenset().union(head, *(content_stems(category) for category in categories))
    titled = content_stems(title) | kinds
    names, properties = set(kinds | _ASPECTS), set[str]()
    liked, disliked, plain = set[str](), set[str](), set[str]()
    for sentence in re.split(r"[.!?;]", review.replace("\u2019", "'")):
        described, naming = _described_in(sentence, titled, head)
        names |= naming
        properties |= described
        plain |= described & frozenset(_undenied(_PRAISING_DENIAL.sub(",", sentence)))
        for clause in re.split(r"\bbut\b", sentence, flags=re.IGNORECASE):
            here = described & content_stems(clause)
            liked |= here if not _UNWANTED.search(clause) else frozenset()
            disliked |= here if not _MISSED.search(clause) else frozenset()
    found = frozenset(properties) - kinds - _ASPECTS
    return Statements(
        properties=found,
        liked=found & liked,
        disliked=found & disliked,
        plain=found & plain,
        names=frozenset(names) - found,
    )


def filler(line: str) -> frozenset[str]:
    """Stems of a line's words that name no property but may accompany one: feelings and spans of time."""
    return frozenset().union(*(content_stems(word) for word in words(line) if _among(word, _FEELINGS | _TIMES)))


def misattributed(line: str, review: str, statements: Statements) -> frozenset[str]:
    """Properties in a line that the review ascribes to something else, which the line omits.

    "How fast it is to set up" and "the quick setup" do not describe a fast or quick lamp.
    """
    content, spoken_line = content_stems(line), words(line)
    before_names = {
        stem
        for word, after in pairwise(spoken_line)
        if content_stems(after) and content_stems(after) <= statements.names - _ASPECTS
        for stem in content_stems(word)
    }
    whole, torn = set[str](), set[str]()
    for clause in re.split(r"[.,;:!?()]", review.replace("\u2019", "'")):
        spoken = words(clause)
        for at, word in enumerate(spoken):
            for stem in content_stems(word) & content & statements.properties:
                rest = " ".join(spoken[at + 1 :])
                how = "how" in (earlier.lower() for earlier in spoken[max(0, at - 3) : at])
                deed = _DEED.match(rest) or (_HOW_IT_DOES.match(rest) if how else None)
                if deed:
                    belongs = content_stems(deed.group(1))
                else:
                    belongs = (
                        content_stems(rest.split(" ")[0]) - statements.names if stem in before_names else frozenset()
                    )
                (whole if belongs <= content else torn).add(stem)
    return frozenset(torn - whole)


def denied_in(line: str) -> frozenset[str]:
    """Stems of a line that follow a denial."""
    return content_stems(line) - frozenset(_undenied(line))


def _described_in(
    sentence: str, title: Collection[str], head: Collection[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Stems of one sentence that describe the item, and stems that name it.

    Args:
        title: stems of the title and the categories.
        head: stems that a name ends with.
    """
    spoken = words(sentence)
    stems = [next(iter(content_stems(word)), "") for word in spoken]
    naming = _naming(spoken, stems, title, head)
    telling = (
        found
        for at, (word, found) in enumerate(zip(spoken, stems, strict=True))
        if found
        and at not in naming
        and not _among(word, _OCCASIONS | _FEELINGS | _TIMES)
        # "After a long search" does not describe the item.
        and not any(_among(after, _OCCASIONS | _TIMES) for after in spoken[at + 1 : at + 2])
    )
    return frozenset(telling), frozenset(stems[at] for at in naming)


def _among(word: str, known: Collection[str]) -> bool:
    lowered = word.lower()
    return lowered in known or any(lowered.removesuffix(ending) in known for ending in _ENDINGS)


def _naming(spoken: Sequence[str], stems: Sequence[str], title: Collection[str], head: Collection[str]) -> set[int]:
    """Indices of words that name the item: after ``this`` or ``my``, or words of its title that end with its head."""
    naming: set[int] = set()
    for at, word in enumerate(spoken):
        if word.lower() not in _DETERMINERS:
            continue
        start = at + 1
        while start < len(spoken) and spoken[start].lower() in _ORDINALS:
            start += 1
        ends = [start]
        for end in range(start, len(stems)):
            pointed = word.lower() in _POINTING and stems[end] and end - start < _LONGEST_NAME
            if pointed and ends[-1] == end:
                ends.append(end + 1)
            elif stems[end] not in title:
                break
            if stems[end] in head:
                ends.append(end + 1)
        naming.update(range(start, ends[-1]))
    return naming


def _undenied(text: str) -> list[str]:
    """Stems of the words without a denial before them in their clause."""
    found: list[str] = []
    for clause in re.split(r"[.,;:!?()]", text.replace("\u2019", "'")):
        denied = False
        for word in words(clause):
            lowered = word.lower()
            if lowered in _CLAUSE_ENDS:
                denied = False
            elif lowered.replace("'", "") in _DENIALS:
                denied = True
            elif not denied:
                found.extend(content_stems(word))
    return found


def _head(title: str) -> frozenset[str]:
    """The stem of the last word of a title's first part, the kind of item."""
    first = _TITLE_TAIL.split(title, maxsplit=1)[0]
    stems = [found for word in words(first) if (found := content_stems(word))]
    return stems[-1] if stems else frozenset()
