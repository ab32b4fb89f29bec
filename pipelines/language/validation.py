"""Checks of a model's answers: a line enters a table only if the review supports its words.

Each check returns a short constant as the reason, so that quarantined rows can be counted.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipelines.language.properties import Statements, denied_in, filler, misattributed, statements_of
from schemas.words import content_stems, jaccard, words

LIKE, DISLIKE = "like", "dislike"
VERBS = {LIKE: "Prefers", DISLIKE: "Avoids"}

_PRICE = re.compile(
    r"[$€£]|\b(?:afford\w*|bargains?|budget\w*|cheap\w*|costs?|costly|deals?|discount\w*|dollars?|expensive|"
    r"inexpensive|money|overpriced|pric\w+|refund\w*|value|worth)\b",
    re.IGNORECASE,
)
_DELIVERY = re.compile(
    r"\b(?:amazon|arriv\w+|customer service|deliver(?:y|ies|ed)|orders?|ordered|packag(?:e|es|ed)|"
    r"return(?:s|ed|ing)?|sellers?|shipments?|shipp\w+|vendors?)\b",
    re.IGNORECASE,
)
_WISHES = re.compile(r"\b(?:could|should|would)\b", re.IGNORECASE)
_TO_THE_MODEL = re.compile(
    r"\b(?:ignor\w*|disregard\w*|forget|overrid\w*)\b.{0,120}\b(?:instruct\w*|previous|prior|above|rules?|prompts?)\b|"
    r"\b(?:system prompt|language model|json|as an ai|your instructions|you are now)\b",
    re.IGNORECASE,
)
_MODEL_NUMBER = re.compile(r"\b(?=[A-Za-z0-9-]{0,40}\d{2})(?=[A-Za-z0-9-]{0,40}[A-Z])[A-Za-z][A-Za-z0-9-]*\b")


@dataclass(frozen=True, kw_only=True)
class LineLimits:
    """Limits of a preference line.

    Args:
        fewest_words, most_words: length, including the verb.
        least_grounded: share of the line's content words that must occur in the review.
        copy_similarity: Jaccard similarity of content words from which a line counts as a copy of an example.
        title_run: number of consecutive words of the title that count as the product's name.
        least_distinct: share of the line's content words that must be distinct.
        topics: topics that lines may mention: ``price``, ``delivery``.
    """

    fewest_words: int = 2
    most_words: int = 12
    least_grounded: float = 0.6
    copy_similarity: float = 0.6
    title_run: int = 4
    least_distinct: float = 0.7
    topics: tuple[str, ...] = ()


def sentiment_of(stars: float) -> str | None:
    """``like`` from four stars, ``dislike`` up to two, else None."""
    if stars >= 4:
        return LIKE
    return DISLIKE if stars <= 2 else None


def line_problem(
    line: str,
    *,
    sentiment: str,
    review: str,
    title: str | None,
    brand: str | None,
    examples: Sequence[str],
    limits: LineLimits,
    names: Collection[str] = frozenset(),
    categories: Sequence[str] = (),
) -> str | None:
    """Why a preference line must not be used, or None.

    Args:
        sentiment: ``like`` or ``dislike``, which the verb must match.
        review: the text that the model saw.
        title, brand: of the reviewed item; the model did not see them, and the line must not name them.
        examples: lines of the prompt's examples.
        names: lower-case words that are always names of brands or products.
        categories: of the reviewed item; like its title they name the kind of item.
    """
    spoken = words(line)
    if not limits.fewest_words <= len(spoken) <= limits.most_words:
        return "wrong length"
    if spoken[0] != VERBS[sentiment]:
        return "wrong verb"
    for topic, pattern in (("price", _PRICE), ("delivery", _DELIVERY)):
        if topic not in limits.topics and pattern.search(line):
            return f"talks of {topic}"
    if _TO_THE_MODEL.search(line):
        return "speaks to the model"
    if any(word.lower() in names for word in spoken[1:]):
        return "names a brand or product"
    if _names_product(spoken, title or "", brand or "", limits.title_run) or _MODEL_NUMBER.search(line):
        return "names a brand or product"
    content = content_stems(line)
    if not content:
        return "says nothing"
    grounded = content & content_stems(review)
    copied = any(jaccard(content, content_stems(example)) >= limits.copy_similarity for example in examples)
    if copied and grounded != content:
        return "copies an example"
    order = [stems for word in spoken if (stems := content_stems(word))]
    if len(grounded) < max(1.0, limits.least_grounded * len(content)) or not order[-1] <= grounded:
        return "not grounded in the review"
    if len(content) < limits.least_distinct * len(order):
        return "repeats itself"
    statements = statements_of(review, title=title or "", categories=categories)
    if problem := _property_problem(line, sentiment, statements, limits):
        return problem
    return "tears words apart" if misattributed(line, review, statements) else None


def _property_problem(line: str, sentiment: str, statements: Statements, limits: LineLimits) -> str | None:
    """Why a grounded line names no property of the item, or inverts the review's sense, or None."""
    content = content_stems(line)
    properties = content & statements.properties
    telling = content - filler(line)
    # "Prefers a guitar" only says what was bought.
    if not properties or (len(telling) == 1 and words(line)[1].lower() in ("a", "an", "another")):
        return "names no property"
    if _WISHES.search(line) or len(telling & (properties | statements.names)) < limits.least_grounded * len(telling):
        return "talks of more than properties"
    denied = denied_in(line)
    if properties & denied & statements.plain:
        return "adds a negation"
    if not properties - denied <= statements.plain:
        return "leaves out a negation"
    if sentiment == LIKE and not properties <= statements.liked:
        return "turns a dislike round"
    if sentiment == DISLIKE and not properties <= statements.disliked:
        return "turns a wish round"
    return None


def _names_product(line: Sequence[str], title: str, brand: str, title_run: int) -> bool:
    spoken = [word.lower() for word in line]
    title_words = words(title)
    named = {word for word in (*title_words, *words(brand)) if word[0].isupper() and not word.isupper()}
    if any(word in named for word in line[1:]):
        return True
    if _contains(spoken, [word.lower() for word in words(brand)]):
        return True
    lowered = [word.lower() for word in title_words]
    parts = [[word.lower() for word in words(part)] for part in title.split(",")]
    models = {word for word in lowered if any(c.isdigit() for c in word) and any(c.isalpha() for c in word)}
    if models & set(spoken):
        return True
    runs = (part[i : i + title_run] for part in parts for i in range(len(part) - title_run + 1))
    return any(_contains(spoken, run) for run in runs)


def _contains(sentence: Sequence[str], run: Sequence[str]) -> bool:
    size = len(run)
    return size > 0 and any(list(sentence[i : i + size]) == list(run) for i in range(len(sentence) - size + 1))


@dataclass(frozen=True, kw_only=True)
class SummaryLimits:
    """Limits of a folded phrase.

    Args:
        most_words: length.
        least_grounded: share of its content words that must occur in its sources.
        least_kept: share of the earlier phrase's content words that it must keep.
    """

    most_words: int = 50
    least_grounded: float = 0.8
    least_kept: float = 0.5


def summary_problem(phrase: str, *, known: str, new: Sequence[str], limits: SummaryLimits) -> str | None:
    """Why a folded phrase must not be used, or None.

    Args:
        known: the phrase of the previous step, empty at first.
        new: the lines folded in.
    """
    if len(words(phrase)) > limits.most_words:
        return "wrong length"
    if _TO_THE_MODEL.search(phrase):
        return "speaks to the model"
    content = content_stems(phrase)
    if not content:
        return "says nothing"
    before, added = content_stems(known), frozenset().union(*(content_stems(line) for line in new))
    if len(content & (before | added)) < limits.least_grounded * len(content):
        return "not grounded in its sources"
    if len(content & before) < limits.least_kept * len(before):
        return "forgets what was known"
    if added - before and not content & (added - before):
        return "leaves out what is new"
    return None


def description_problem(
    description: str, *, text: str, most_words: int = 30, least_grounded: float = 0.6
) -> str | None:
    """Why a description of an item must not be used, or None.

    Args:
        text: the item's text that the model saw.
        least_grounded: share of the description's content words that must occur in `text`.
    """
    if len(words(description)) > most_words:
        return "wrong length"
    if _TO_THE_MODEL.search(description):
        return "speaks to the model"
    if _PRICE.search(description):
        return "talks of price"
    content = content_stems(description)
    if not content:
        return "says nothing"
    if len(content & content_stems(text)) < least_grounded * len(content):
        return "not grounded in its sources"
    return None
