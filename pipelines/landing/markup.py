"""The visible text of HTML, and of texts that only look like HTML.

People write ``a < b``, ``Size <M`` and ``I <3 it``. So a ``<`` begins markup only where an HTML element follows that is
closed, or cut off within an attribute by the end of the text. Every other ``<`` is text, also that of a ``<script>`` or
``<style>`` without an end tag and without code, which would hide the rest. The parser is libxml2's, whose tokenizer
follows the HTML standard; it runs as a stream, without a tree, so that time is linear and words keep their order.
"""

import html
import re
from functools import partial
from html.entities import html5
from typing import Any, NamedTuple

from lxml import etree

from schemas.words import listed

# The elements of the HTML standard, and those of older pages.
_ELEMENTS = listed(
    """a abbr acronym address applet area article aside audio b base basefont bdi bdo big blink blockquote body br
    button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt em
    embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i
    iframe img input ins kbd label legend li link main map mark marquee math menu meta meter nav nobr noembed
    noframes noscript object ol optgroup option output p param picture plaintext pre progress q rp rt ruby s samp
    script search section select slot small source span strike strong style sub summary sup svg table tbody td
    template textarea tfoot th thead time title tr track tt u ul var video wbr xmp"""
)
# Elements whose content the parser does not parse, so that it would contain tags. We want their text.
_VERBATIM = listed("iframe noembed noframes noscript plaintext textarea title xmp")
_UNSEEN = frozenset(("script", "style"))
# Prefixes of elements that word processors and old pages leave.
_PREFIXES = listed("fb o st1 st2 v w")
# The beginning of a script or a style sheet.
_CODE = re.compile(
    r"""[ ]?(?:
        //|/\*|<!--|[!;+]?\(?(?:async[ ])?function\b[ ]?\w{0,80}\(|\(\w{0,80}\)[ ]?=>|[\"']use[ ]strict|[{\[][ ]?["'{]
        |(?:var|let|const)[ ][\w$]{1,80}[ ]?[=;,]|(?:if|for|while|try)[ ]?(?:\([^()]{0,200}\))?[ ]?\{
        |@(?:import|media|charset|font-face)\b
        |[\w$.]{1,80}(?:\[[^\]]{0,80}\])?(?:\((?:["')\[{]|function\b)|[ ]?[+|]?=)|(?:\w{1,40}\.\w{1,40}|\$)\(
        |[.\#@*:]?[a-zA-Z][^{}<;]{0,300}\{[ ]?(?:\}|[a-zA-Z-]{1,40}[ ]?:)
    )""",
    re.VERBOSE,
)
_ENTITY = re.compile(r"&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_SPACE = re.compile(r"[\s\u00a0\u200b\ufeff\x00-\x1f\x7f]+")
# A "<" with the tag that it may begin.
_LESS = re.compile(
    r"""<(?:
        (?P<declared>!--|!doctype\b)
        |/(?P<ended>[a-z][a-z0-9]{0,15}(?::[a-z]{1,20})?)[ ]?(?=>|\Z)
        |(?P<name>[a-z][a-z0-9]{0,15}(?::[a-z]{1,20})?)
            (?=[ ]?/?>|[ ]?/?[ ]?[a-z][\w:.-]{0,60}[ ]?=
            |[ ](?:async|checked|compact|controls|defer|disabled|hidden|loop|muted|noshade|nowrap|selected)[ />])
            (?P<rest>[^<>]*+)(?=>|\Z)
    )?""",
    re.VERBOSE | re.IGNORECASE,
)


def plain(raw: str) -> str:
    """`raw` without markup and entities (also those escaped twice), with single spaces.

    Control characters and the marks U+200B and U+FEFF count as white space. A tag becomes a space, so that the
    sentences of ``one.<br />Two`` stay apart.
    """
    # Every white space but the space itself, and every mark that counts as one, is not printable.
    if raw.isprintable() and "  " not in raw and "&" not in raw and "<" not in raw:
        return raw.strip()
    text = raw
    if "&" in text:
        text = _ENTITY.sub(_character, _ENTITY.sub(_character, text))
    text = _SPACE.sub(" ", text).strip()
    if "<" not in text:
        return text
    safe = text.replace("&", "&amp;")
    ends = _ends(safe)
    if not any(_is_markup(ends, found) for found in _LESS.finditer(safe)):
        return text
    fed = _LESS.sub(partial(_fed, ends), safe)
    parser = etree.HTMLParser(target=_Seen(), encoding="utf-8", huge_tree=True)
    # Half a surrogate pair cannot be encoded and becomes a question mark.
    parser.feed(fed.encode("utf-8", "replace"))
    return _SPACE.sub(" ", parser.close()).strip()


def _character(entity: re.Match[str]) -> str:
    """The character of an entity; the entity itself where it is unknown."""
    name = entity[0][1:]
    return html.unescape(entity[0]) if name[0] == "#" else html5.get(name, entity[0])


def _name(less: re.Match[str]) -> str:
    return (less["name"] or less["ended"] or "").lower()


class _Ends(NamedTuple):
    """Where the last comment of a text ends (-1: none), and the starts of scripts and styles that have an end tag."""

    last_comment: int
    ended: frozenset[int]


def _ends(text: str) -> _Ends:
    ended, begun = set(), {}
    for less in _LESS.finditer(text):
        name = _name(less)
        if name not in _UNSEEN:
            continue
        if less["name"]:
            begun[name] = less.start()
        elif name in begun:
            ended.add(begun.pop(name))
    return _Ends(text.rfind("-->"), frozenset(ended))


def _is_markup(ends: _Ends, less: re.Match[str]) -> bool:
    """Whether a ``<`` begins markup."""
    if less["declared"]:
        return less["declared"] != "!--" or less.start() < ends.last_comment
    name = _name(less)
    if less["name"] and name in _UNSEEN and less.start() not in ends.ended:
        return bool(less["rest"].strip(" /") or _CODE.match(less.string, less.end() + 1))
    prefix, colon, _ = name.partition(":")
    return name in _ELEMENTS or bool(colon and prefix in _PREFIXES)


def _fed(ends: _Ends, less: re.Match[str]) -> str:
    """A ``<``, with its tag, as input for the parser."""
    if not _is_markup(ends, less):
        return "&lt;" + less[0][1:]
    tag = less[0]
    if any((less["rest"] or "").count(quote) % 2 for quote in "\"'"):
        # An open quote would hide the text behind the tag.
        tag = tag.replace('"', " ").replace("'", " ")
    return " " + (tag.replace(less["name"] or less["ended"], "div", 1) if _name(less) in _VERBATIM else tag)


class _Seen:
    """Target of the parser that collects all text but that of scripts and styles."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._unseen = 0

    def start(self, tag: str, attributes: Any) -> None:  # noqa: ARG002  (the parser's interface)
        self._parts.append(" ")
        self._unseen += tag in _UNSEEN

    def end(self, tag: str) -> None:
        self._parts.append(" ")
        self._unseen -= tag in _UNSEEN

    def data(self, text: str) -> None:
        if not self._unseen:
            self._parts.append(text)

    def comment(self, text: str) -> None:  # noqa: ARG002
        self._parts.append(" ")

    def close(self) -> str:
        return "".join(self._parts)
