"""What a review says of the thing itself: which of its words tell a property, and in which sense.

No grammar is parsed. A word tells a property when it stands somewhere outside what merely names the thing ("this camp
stove") and is no word about buying, giving, people, time or the writer's feelings. Its sense is read from what stands
around it: whether it is denied ("without a cable"), unwanted ("my one gripe is"), or wanted in vain ("next time I will
look for").
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
# What a title says after the thing's own name.
_TITLE_TAIL = re.compile(r"[,(;:|/\[]| - |\b(?:by|for|with)\b", re.IGNORECASE)

# Words by which people speak of buying, giving, other people and themselves.
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
# Feelings that name no property, besides the empty praise that `content_stems` leaves out, and spans of time.
_FEELINGS = listed(
    """absolute addictive adequate appalling average beautiful brilliant crap delight delightful different
    disappoint disappointed disappointing disappointment easily exact excellent exceptional extreme fabulous fair
    favorable first garbage glad gorgeous happy horrible ideal impressive incredible interesting junk likable
    lovely luckily main mediocre need obvious outstanding overall pleasant pleased pleasing possible pretty proper real
    remarkable ridiculous sad sadly satisfied satisfying several simply special specific spectacular standard
    stunning substandard suit suitable superb sure terrific total typical unfortunately unique unnecessary
    unpleasant useful useless usual various weird whole wonderful"""
)
# Sides of a thing that are nothing without a word for how they are: "the compact size", but not "the best size".
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
# "I can't say enough about the bass" denies nothing.
_PRAISING_DENIAL = re.compile(
    r"\b(?:can|could)(?: ?not|n?'?t) (?:say|praise|get|ask|recommend|go|beat|be beat|stand|bear)\b|"
    r"\bd(?:o|id|oes)(?: not|n't) (?:really )?(?:like|enjoy|care for|love)\b|"
    r"\b(?:not|never|no|n't|nothing)(?: (?:be|been|have|had|a|any))*"
    r" (?:let down|disappoint\w*|complain\w*|regret\w*|problems?|issues?|doubts?|only|just|enough)\b",
    re.IGNORECASE,
)
# What follows a word that tells how something is done: "easy to clean", "how flat it folds".
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
# Clauses about what the writer wants and did not get.
_MISSED = re.compile(
    r"\b(?:expect\w*|hop(?:ed|ing)|i(?: usually| always| normally)? (?:like|love|prefer|want|need)|instead|looking for|"
    r"look for|next time|should have|supposed|thought|usually|wanted|wish\w*|would have|would rather)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """Stems of a review's words by what they tell.

    Args:
        properties: said of the thing, in whatever sense.
        liked, disliked: the same where the clause does not say that it is unwanted, or was wanted in vain.
        plain: said without a denial before it.
        names: what merely names the thing, here or in its title or category, and sides of things.
    """

    properties: frozenset[str]
    liked: frozenset[str]
    disliked: frozenset[str]
    plain: frozenset[str]
    names: frozenset[str]


def told_by(review: str, *, title: str = "", categories: Sequence[str] = ()) -> Told:
    """Read a review sentence by sentence.

    Args:
        title, categories: of the reviewed item, which tell what the thing is called; empty where unknown.
    """
    head = _head(title)
    kinds = frozenset().union(head, *(content_stems(category) for category in categories))
    titled = content_stems(title) | kinds
    names, properties = set(kinds | _ASPECTS), set[str]()
    liked, disliked, plain = set[str](), set[str](), set[str]()
    for sentence in re.split(r"[.!?;]", review.replace("\u2019", "'")):
        told, naming = _told_in(sentence, titled, head)
        names |= naming
        properties |= told
        plain |= told & frozenset(_undenied(_PRAISING_DENIAL.sub(",", sentence)))
        for clause in re.split(r"\bbut\b", sentence, flags=re.IGNORECASE):
            here = told & content_stems(clause)
            liked |= here if not _UNWANTED.search(clause) else frozenset()
            disliked |= here if not _MISSED.search(clause) else frozenset()
    said = frozenset(properties) - kinds - _ASPECTS
    return Told(
        properties=said, liked=said & liked, disliked=said & disliked, plain=said & plain, names=frozenset(names) - said
    )


def filling(line: str) -> frozenset[str]:
    """Stems of a line's words that name no property and do no harm beside one: feelings and spans of time."""
    return frozenset().union(*(content_stems(word) for word in words(line) if _among(word, _FEELINGS | _TIMES)))


def torn_from(line: str, review: str, told: Told) -> frozenset[str]:
    """Properties in a line that the review gives to something else, which the line leaves out.

    "How fast it is to set up" and "the quick setup" make no fast or quick lamp.
    """
    content, spoken_line = content_stems(line), words(line)
    before_names = {
        stem
        for word, after in pairwise(spoken_line)
        if content_stems(after) and content_stems(after) <= told.names - _ASPECTS
        for stem in content_stems(word)
    }
    whole, torn = set[str](), set[str]()
    for clause in re.split(r"[.,;:!?()]", review.replace("\u2019", "'")):
        spoken = words(clause)
        for at, word in enumerate(spoken):
            for stem in content_stems(word) & content & told.properties:
                rest = " ".join(spoken[at + 1 :])
                how = "how" in (earlier.lower() for earlier in spoken[max(0, at - 3) : at])
                deed = _DEED.match(rest) or (_HOW_IT_DOES.match(rest) if how else None)
                if deed:
                    belongs = content_stems(deed.group(1))
                else:
                    belongs = content_stems(rest.split(" ")[0]) - told.names if stem in before_names else frozenset()
                (whole if belongs <= content else torn).add(stem)
    return frozenset(torn - whole)


def denied_in(line: str) -> frozenset[str]:
    """Stems that a line speaks of after a word that denies them."""
    return content_stems(line) - frozenset(_undenied(line))


def _told_in(sentence: str, title: Collection[str], head: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Stems of one sentence that tell properties, and stems of names.

    Args:
        title: stems of the title and of what such things are called.
        head: stems that a name ends in.
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
        # "After a long search" tells nothing of the thing.
        and not any(_among(after, _OCCASIONS | _TIMES) for after in spoken[at + 1 : at + 2])
    )
    return frozenset(telling), frozenset(stems[at] for at in naming)


def _among(word: str, known: Collection[str]) -> bool:
    lowered = word.lower()
    return lowered in known or any(lowered.removesuffix(ending) in known for ending in _ENDINGS)


def _naming(spoken: Sequence[str], stems: Sequence[str], title: Collection[str], head: Collection[str]) -> set[int]:
    """Places of words that name the thing: after ``this`` or ``my``, or words of its title that end in its head."""
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
    """Stems of the words that no denial precedes within their clause."""
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
    """The stem of the last word of a title's first part: what the thing is."""
    first = _TITLE_TAIL.split(title, maxsplit=1)[0]
    stems = [found for word in words(first) if (found := content_stems(word))]
    return stems[-1] if stems else frozenset()
