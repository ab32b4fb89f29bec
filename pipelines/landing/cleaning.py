"""Cleaning of titles, texts, prices, brands and categories as product pages leave them. Plain Python, no engine."""

import html
import math
import re
from collections.abc import Iterable
from typing import Any

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_SCRIPT = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
# A tag starts with a letter right after "<", so that "a < b" and "<3" stay.
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_OPEN_TAG_AT_END = re.compile(r"</?[a-zA-Z][\w-]*(?:\s+[\w-]+(?:\s*=\s*(?:\"[^\"]*\"?|'[^']*'?|[^\s<>]*))?)*\s*/?\Z")
_GLUED = re.compile(r"([a-z]{3}[.!?])(?=[A-Z][a-z])")
_SPACE = re.compile(r"[\s\u00a0\u200b\ufeff\x00-\x1f\x7f]+")
_PAGE_CODE = re.compile(
    r"""\bvar\s+aPage|\bfunction\s*\(|\bdocument\.|\bwindow\.|\bP\.when\(|\.a-box\b|\ba-size-|\ba-color-|\ba-section\b
        |[.\#][\w-]+\s*\{[^}]*:|/>\s*\Z""",
    re.VERBOSE,
)
_NO_TITLE = {"no title", "n/a", "none", "null", "nan", "-", "--"}
_BY = re.compile(r"\Aby\s+", re.IGNORECASE)
_VISIT = re.compile(r"\A(?:visit\s+)?(?:the\s+)?(?:amazon's\s+)?(?P<brand>.+?)\s+(?:page|store)\Z", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_PRICE_TEXT = re.compile(r"\A(?:from\s+)?(?:US|USD|EUR|GBP)?\s*[$€£]?\s*(?P<low>[\d,.]+)(?P<rest>.*)\Z", re.IGNORECASE)
_PRICE_REST = re.compile(
    r"\A\s*(?:(?:-|\u2013|\u2014|to)\s*(?:US|USD)?\s*[$€£]?\s*[\d,.]+)?\s*(?:USD|EUR|GBP)?\s*\Z", re.IGNORECASE
)


def clean_text(raw: str | None) -> str:
    """Free text without entities (also twice escaped ones), scripts, comments and tags, whitespace made single.

    A tag becomes a space, so that ``one.<br />Two`` keeps its sentences apart, and so does a line break that the source
    has lost (``one.Two``, a fifth of the reviews in Amazon's release of 2014).
    """
    if not raw:
        return ""
    text = raw
    if "&" in text:
        text = html.unescape(html.unescape(text))
    if "<" in text:
        text = _COMMENT.sub(" ", text)
        text = _SCRIPT.sub(" ", text)
        text = _TAG.sub(" ", text)
    return _SPACE.sub(" ", _GLUED.sub(r"\1 ", text)).strip()


def clean_title(raw: str | None) -> str | None:
    """A title, or None where there is none or where a scraper caught the page's markup or code instead."""
    if not raw or not raw.strip():
        return None
    unescaped = html.unescape(html.unescape(raw))
    if _PAGE_CODE.search(unescaped) or _OPEN_TAG_AT_END.search(unescaped):
        return None
    title = clean_text(raw)
    return None if title.lower() in _NO_TITLE or not any(c.isalnum() for c in title) else title


def clean_brand(raw: str | None) -> str | None:
    """A brand without "by" in front and without the words of a link to its page; None where there is none."""
    brand = _BY.sub("", clean_title(raw) or "").strip()
    if match := _VISIT.match(brand):
        link = brand.lower().startswith("visit") or "amazon's" in brand.lower()
        brand = match["brand"] if link else brand
    return None if not brand or brand.lower() == "unknown" else brand


def clean_price(raw: str | float | None) -> float | None:
    """A price: a number, ``$1,299.00`` or a range (its lower end); None for anything else, page code included."""
    if raw is None or isinstance(raw, bool):
        return None
    if isinstance(raw, int | float):
        return float(raw) if math.isfinite(raw) and raw > 0 else None
    text = _SPACE.sub(" ", html.unescape(raw)).strip()
    match = _PRICE_TEXT.match(text)
    if not match or not _PRICE_REST.match(match["rest"]) or not _NUMBER.fullmatch(match["low"]):
        return None
    price = float(match["low"].replace(",", ""))
    return price if price > 0 else None


def clean_categories(raw: Any) -> list[str]:
    """Category names, outermost first, each once; nested lists (2014) are walked in order."""
    names: dict[str, None] = {}
    for name in _leaves(raw):
        cleaned = clean_title(name)
        if cleaned:
            names.setdefault(cleaned)
    return list(names)


def _leaves(raw: Any) -> Iterable[str]:
    if isinstance(raw, str):
        yield raw
    elif raw is not None:
        for part in raw:
            yield from _leaves(part)


def clean_description(raw: Any) -> str | None:
    """One text from a description or a list of paragraphs; a repeated paragraph counts once."""
    paragraphs: dict[str, None] = {}
    for part in _leaves(raw):
        cleaned = clean_text(part)
        if cleaned and not _PAGE_CODE.search(cleaned):
            paragraphs.setdefault(cleaned)
    return " ".join(paragraphs) or None
