"""Text out of HTML: what a reader of the page would see, and nothing that is no HTML.

People write ``a < b``, ``Size <M`` and ``I <3 it``. So a ``<`` begins markup only where an element of HTML follows that
is closed, or cut off by the end within an attribute; everything else is text, and reaches the parser as text. So does
``<script>`` or ``<style>`` where nothing ends it and no code follows, since it would swallow all that is said. What
comments and scripts swallow is the parser's to say: libxml2's, whose tokenizer is the one of the HTML standard. It is
fed as a stream, without a tree, so that its cost is linear and words keep their order.
"""

import html
import re
from collections.abc import Mapping
from functools import partial
from html.entities import html5
from typing import Any

from lxml import etree

from schemas.words import listed

# As the standard has them, with those of older pages.
_ELEMENTS = listed(
    """a abbr acronym address applet area article aside audio b base basefont bdi bdo big blink blockquote body br
    button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt em
    embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i
    iframe img input ins kbd label legend li link main map mark marquee math menu meta meter nav nobr noembed
    noframes noscript object ol optgroup option output p param picture plaintext pre progress q rp rt ruby s samp
    script search section select slot small source span strike strong style sub summary sup svg table tbody td
    template textarea tfoot th thead time title tr track tt u ul var video wbr xmp"""
)
# Elements whose content would reach us as it stands, tags included. We want their text.
_VERBATIM = listed("iframe noembed noframes noscript plaintext textarea title xmp")
_UNSEEN = frozenset(("script", "style"))
# Of elements with a prefix, those that word processors and old pages leave.
_PREFIXES = listed("fb o st1 st2 v w")
# How a script or a style sheet begins.
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
# One "<", with the tag that it may begin.
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
    """`raw` without entities (also twice escaped ones) and markup, runs of white space made one space.

    A text without either is changed in its white space only; control characters and the marks U+200B and U+FEFF count
    as white space. A tag becomes a space, so that ``one.<br />Two`` keeps its sentences apart.
    """
    text = raw
    if "&" in text:
        text = _ENTITY.sub(_character, _ENTITY.sub(_character, text))
    text = _SPACE.sub(" ", text).strip()
    if "<" not in text:
        return text
    safe = text.replace("&", "&amp;")
    last = {_name(found): found.start() for found in _LESS.finditer(safe) if found["ended"]}
    last["!--"] = safe.rfind("-->")
    if not any(_is_markup(last, found) for found in _LESS.finditer(safe)):
        return text
    fed = _LESS.sub(partial(_fed, last), safe)
    parser = etree.HTMLParser(target=_Seen(), encoding="utf-8", huge_tree=True)
    # Half a surrogate pair, which no encoding has, comes out as a question mark.
    parser.feed(fed.encode("utf-8", "replace"))
    return _SPACE.sub(" ", parser.close()).strip()


def _character(entity: re.Match[str]) -> str:
    """What one entity stands for; itself where no such entity is known."""
    name = entity[0][1:]
    return html.unescape(entity[0]) if name[0] == "#" else html5.get(name, entity[0])


def _name(less: re.Match[str]) -> str:
    return (less["name"] or less["ended"] or "").lower()


def _is_markup(last: Mapping[str, int], less: re.Match[str]) -> bool:
    """Whether a ``<`` begins markup, in a text in which the last ends of elements and comments stand at `last`."""
    if less["declared"]:
        return less["declared"] != "!--" or less.start() < last["!--"]
    name = _name(less)
    if less["name"] and name in _UNSEEN and last.get(name, -1) < less.start():
        return bool(less["rest"].strip(" /") or _CODE.match(less.string, less.end() + 1))
    prefix, colon, _ = name.partition(":")
    return name in _ELEMENTS or bool(colon and prefix in _PREFIXES)


def _fed(last: Mapping[str, int], less: re.Match[str]) -> str:
    """One ``<`` as the parser is to read it."""
    if not _is_markup(last, less):
        return "&lt;" + less[0][1:]
    tag = less[0]
    if any((less["rest"] or "").count(quote) % 2 for quote in "\"'"):
        # A quote that is not closed would swallow the text behind the tag.
        tag = tag.replace('"', " ").replace("'", " ")
    return " " + (tag.replace(less["name"] or less["ended"], "div", 1) if _name(less) in _VERBATIM else tag)


class _Seen:
    """What the parser reports, gathered: every text but that of scripts and styles."""

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
