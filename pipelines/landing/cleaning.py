"""Cleaning of titles, texts, prices, brands and categories from product pages. Plain Python, no engine.

Markup and entities are removed, words are always kept. A title counts as missing only where a scraper captured page
code instead. Every pattern takes time linear in the length of its input.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from pipelines.landing.markup import plain

# A sentence that has lost the line break before it, unlike the names "Heart.Break", "Last.Fm" and "www.Example.Com".
_GLUED = re.compile(r"(?<![\w.@/'-])(?!www\.)([a-z]{3,}[.!?])(?=[A-Z][a-z])")
# Every such sentence has this, which is found five times as fast.
_PERHAPS_GLUED = re.compile(r"[.!?][A-Z]")
# How scripts and style sheets of product pages begin.
_PAGE_CODE = re.compile(
    r"""var[ ]\w{1,80}[ ]?=
        |P\.when\(['"]
        |\(?function[ ]?\w{0,80}\([\w ,$]{0,200}\)[ ]?\{
        |(?:window|document)\.[a-z]\w{0,80}(?:[.(\[]|[ ]?=)
        |[.\#][a-zA-Z][\w-]{0,80}[^{}]{0,300}\{[ ]?(?:background|border|bottom|box|clear|color|content|cursor|display
            |float|font|height|left|line|list|margin|max|min|opacity|overflow|padding|position|right|text|top
            |vertical|visibility|white|width|z)(?:-[a-z]{1,20}){0,3}[ ]?:""",
    re.VERBOSE,
)
_TAIL_OF_A_TAG = ('"/>', '" />')
# A title of these alone is a placeholder or a rest of a tag. "!!!", a division sign and a star are titles of records.
_NO_TITLE_CHARS = frozenset(" -\u2010\u2011\u2012\u2013\u2014\u2015<>{}\"';/\ufffd")
_NO_TITLE = {"no title", "n/a", "none", "null", "nan", "-", "--"}
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
# 1.299,00 and 1.299.000 in any currency; in euros, which have cents of two digits, also 12,99 and 1.299.
_COMMA_NUMBER = re.compile(r"\d{1,3}(?:\.\d{3})+,\d{2}|[1-9]\d{0,2}(?:\.\d{3}){2,}")
_EURO_NUMBER = re.compile(r"\d+,\d{2}|[1-9]\d{0,2}\.\d{3}")
_PRICE = re.compile(
    r"""(?:from[ ])?(?:USD|US|EUR|GBP)?[ ]?[$€£¥]?[ ]?(?P<low>[\d,.]+)
        (?:[ ]?(?:-|\u2013|\u2014|to)[ ]?(?:USD|US)?[ ]?[$€£¥]?[ ]?[\d,.]+)?[ ]?(?:USD|EUR|GBP|[$€£¥])?""",
    re.VERBOSE | re.IGNORECASE,
)
_PRICE_CHARS = 60


def clean_text(raw: str | None) -> str:
    """Free text without entities, scripts, comments, tags and repeated whitespace.

    Two sentences without a space between them get one (``reliable.Great``): a fifth of the reviews of Amazon's release
    of 2014 have lost their line breaks.
    """
    text = plain(raw) if raw else ""
    return _GLUED.sub(r"\1 ", text) if _PERHAPS_GLUED.search(text) else text


def clean_title(raw: str | None) -> str | None:
    """A title; None where there is none, or where a scraper captured the page's markup or code instead."""
    title = plain(raw) if raw else ""
    if _PAGE_CODE.match(title) or title.endswith(_TAIL_OF_A_TAG):
        return None
    if not any(c.isprintable() and c not in _NO_TITLE_CHARS for c in title):
        return None
    return None if title.lower() in _NO_TITLE else title


def _has_words(text: str) -> bool:
    return any(c.isalnum() for c in text)


def clean_brand(raw: str | None) -> str | None:
    """A brand without the words of a link to its page; None where there is none.

    The page's ``by`` is followed by a line break; that of a name ("By Terry") is not.
    """
    brand = clean_title(raw)
    if raw is None or brand is None or not _has_words(brand):
        return None
    after = raw.strip().removeprefix("by")
    if brand.startswith("by ") and "\n" in after[: len(after) - len(after.lstrip())]:
        brand = brand.removeprefix("by ")
    words = brand.split(" ")
    ends = [word.lower() for word in (*words[:2], words[-1])]
    if len(words) > 3 and ends in (["visit", "the", "store"], ["visit", "amazon's", "page"]):
        brand = " ".join(words[2:-1])
    return None if brand.lower() == "unknown" else brand


def clean_price(raw: str | float | None) -> float | None:
    """A price from a number, ``$1,299.00``, ``1.299,00 €`` or a range (its lower end); None for anything else."""
    if raw is None or isinstance(raw, bool):
        return None
    if isinstance(raw, int | float):
        return float(raw) if math.isfinite(raw) and raw > 0 else None
    text = plain(raw) if len(raw) <= _PRICE_CHARS else ""
    match = _PRICE.fullmatch(text)
    if not match:
        return None
    number = match["low"]
    in_euros = "€" in text or "EUR" in text.upper()
    if _COMMA_NUMBER.fullmatch(number) or (in_euros and _EURO_NUMBER.fullmatch(number)):
        number = number.replace(".", "").replace(",", ".")
    elif not _NUMBER.fullmatch(number):
        return None
    price = float(number.replace(",", ""))
    return price if price > 0 else None


def clean_categories(raw: Any) -> list[str]:
    """Distinct category names, outermost first; nested lists (Amazon 2014) are flattened in order."""
    names: dict[str, None] = {}
    for name in _leaves(raw):
        cleaned = clean_title(name)
        if cleaned and _has_words(cleaned):
            names.setdefault(cleaned)
    return list(names)


def _leaves(raw: Any) -> Iterable[str]:
    """The strings of `raw`, which may be None or lists nested to any depth, in order."""
    waiting = [raw]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif part is not None:
            waiting.extend(reversed(list(part)))


def clean_description(raw: Any) -> str | None:
    """One text from a description or a list of paragraphs, without repeated paragraphs."""
    paragraphs: dict[str, None] = {}
    for part in _leaves(raw):
        cleaned = clean_text(part)
        if cleaned and not _PAGE_CODE.match(cleaned):
            paragraphs.setdefault(cleaned)
    return " ".join(paragraphs) or None
