"""Rows of CSV files and their like, with every physical line accounted for. Plain Python, no engine.

Quoting is that of RFC 4180. Where the lines of a row cannot be read, only the first of them is refused and reading goes
on with the next, so that an open quote costs one row and not the rest of the file.
"""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.landing.text_files import Line
from schemas.errors import DataError

HEADER, BLANK = "header", "blank"
"""Reasons of lines that hold no data."""
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
_TYPED = re.compile(r"(.+):(?:token|float)(?:_seq)?")
_NAMES_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a text file is written.

    Args:
        encoding: a name that Python knows; a byte order mark overrides it.
        separator: between columns; empty to infer it from the header.
        escape: before a quote inside quotes; empty where such a quote is doubled.
    """

    encoding: str = "utf-8"
    separator: str = ""
    escape: str = ""

    def __post_init__(self) -> None:
        try:
            "a".encode(self.encoding)  # a codec that is no encoding of texts, such as hex, can be looked up
        except (LookupError, ValueError) as error:
            raise DataError(f"encoding {self.encoding[:40]!r} is not known; examples: utf-8, cp1252, utf-16") from error
        if len(self.separator) > 1 or self.separator in ('"', "\n", "\r"):
            raise DataError(f"separator {self.separator!r}: give one character, or {', '.join(SEPARATORS)}")
        if self.escape not in ("", "\\"):
            raise DataError(f"escape {self.escape!r}: quotes are doubled, or escaped with a backslash")


UTF_8 = Layout()


@dataclass(frozen=True)
class Header:
    """The first line of a file that is not blank.

    Args:
        names: trimmed, without RecBole's types (``user_id:token``).
        spaced: whether a space follows each separator; it is part of no value.
    """

    names: tuple[str, ...]
    separator: str
    spaced: bool

    @classmethod
    def read(cls, line: str, layout: Layout) -> "Header":
        """Read a header; the separator, unless given, is the one that gives the most columns."""
        line = line.lstrip("\ufeff").rstrip("\r\n")
        candidates = [layout.separator] if layout.separator else list(SEPARATORS.values())
        names, separator = max(((_names(line, one), one) for one in candidates), key=lambda found: len(found[0]))
        spaced = len(names) > 1 and line.count(f"{separator} ") >= len(names) - 1
        trimmed = [name.strip() for name in names]
        typed = [_TYPED.fullmatch(name) for name in trimmed]
        if all(typed):
            trimmed = [found[1] for found in typed if found]
        return cls(tuple(trimmed), separator, spaced)

    def positions(self, wanted: Sequence[str], path: object) -> list[int]:
        """Indices of the columns `wanted`.

        Raises:
            DataError: one is missing, or a name occurs twice.
        """
        twice = sorted({name for name in self.names if name and self.names.count(name) > 1})
        if twice:
            raise DataError(f"{path}: the header has {twice[0]!r} twice; rename one of the two columns")
        missing = [name for name in wanted if name not in self.names]
        if missing:
            raise DataError(f"{path}: there is no column {missing[0]!r}; the file has: {shown(self.names)}")
        return [self.names.index(name) for name in wanted]


def _names(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # a name of 100 kB
        return [line]


def shown(names: Sequence[str]) -> str:
    """Column names for a message: the first twelve, each cut."""
    cut = ", ".join(name[:30] for name in names[:_NAMES_SHOWN])
    return f"{cut} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else cut


class Row(NamedTuple):
    """One or more lines of a file.

    `reason` and `detail` say why they are no row of data: `HEADER`, `BLANK`, or what is wrong; else they are empty.
    """

    line: int
    lines: int
    text: str
    fields: Sequence[str]
    reason: str = ""
    detail: str = ""


class _Refused(Exception):
    """A row cannot be read; the arguments are its reason and detail."""


class _Lines:
    """Lines of the row that is being read, which can be given back.

    A row of many lines is refused as soon as it has too many columns. Otherwise each quote that never closes, such as
    an inch mark, would be followed up to the limit of bytes.
    """

    header: Header | None = None

    def __init__(self, lines: Iterable[Line], layout: Layout, max_bytes: int) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()
        self._layout = layout
        self._max_bytes = max_bytes
        self._size = 0
        self._columns = 0
        self.taken: list[Line] = []

    def begin(self) -> None:
        """Begin a row with the next line."""
        self.taken = []
        self._size = self._columns = 0

    def give_back(self) -> None:
        """Return all lines but the first, to be read again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self.header and self.taken:
            self._count(self.taken[-1], self.header)
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        self._size += line[2]
        if self._size > self._max_bytes:
            raise _Refused(*self._too_long())
        return f"{_text(line)}\n"

    def _count(self, line: Line, header: Header) -> None:
        """Count the columns up to the end of a line with an open quote."""
        if self._layout.escape and line[1].rstrip(b"\r").endswith(b"\\"):
            self._columns = -self._max_bytes  # perhaps no quote is open, so columns cannot be counted
            return
        begun = len(self.taken) > 1
        if begun and b'"' not in line[1]:
            return
        text = f'"{_text(line)}' if begun else _text(line)
        self._columns += len(next(_reader([text], header, self._layout, strict=False))) - begun
        if self._columns > len(header.names):
            found = f"a quote opens here, and up to line {line[0]} there are more columns than in the header"
            raise _Refused("unclosed_quote", f"{found}; close or double it")

    def _too_long(self) -> tuple[str, str]:
        limit = self._max_bytes
        if len(self.taken) == 1:
            detail = f"{self.taken[0][2]} bytes, the limit is {limit}; cut the text, or raise ingest.max_line_bytes"
            return "line_too_long", detail
        return "unclosed_quote", f"a quote opens here and nothing closes it within {limit} bytes; close or double it"


def _text(line: Line) -> str:
    """A line as text; bytes that are not UTF-8 become surrogate escapes.

    A byte order mark may begin any line, since files are concatenated.
    """
    return line[1].decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def read_rows(lines: Iterable[Line], layout: Layout, max_bytes: int) -> Iterator[Row]:
    """The rows of one file, with header, blank and refused lines, so that their lines add up to the file's."""
    source = _Lines(lines, layout, max_bytes)
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    header: Header | None = None
    reader: Iterator[list[str]] | None = None
    while True:
        source.begin()
        fields: list[str] = []
        reason = detail = ""
        try:
            if header is None:
                first = next(source)
                if first.strip():
                    header, reason = Header.read(first, layout), HEADER
                    source.header = header
            else:
                reader = reader or _reader(source, header, layout)
                fields = next(reader)
        except StopIteration:
            return
        except _Refused as error:
            reader = None
            reason, detail = error.args
        except csv.Error as error:
            reader = None
            reason, detail = _malformed(error, source.taken, layout)
        if (not reason and not fields) or (len(source.taken) == 1 and not source.taken[0][1].strip()):
            reason, detail = BLANK, ""
        elif not reason and header and len(fields) != len(header.names):
            reason, detail = _other_width(len(fields), header, source.taken)
            reader = None if len(source.taken) > 1 else reader
        if reason:
            source.give_back()
        taken = source.taken
        text = _text(taken[0]) if len(taken) == 1 else "\n".join(map(_text, taken))
        yield Row(taken[0][0], len(taken), text, fields, reason, detail)


def _reader(source: Iterable[str], header: Header, layout: Layout, strict: bool = True) -> Iterator[list[str]]:
    """Doubled quotes are allowed with an escape, too; otherwise Python accepts text after a closing quote."""
    return csv.reader(
        source,
        delimiter=header.separator,
        escapechar=layout.escape or None,
        skipinitialspace=header.spaced,
        strict=strict,
    )


def _malformed(error: csv.Error, taken: Sequence[Line], layout: Layout) -> tuple[str, str]:
    if "unexpected end" in str(error):
        detail = "a quote opens here and nothing closes it up to the end of the file; close or double it"
        return "unclosed_quote", detail
    if "new-line" in str(error):
        return "malformed_csv", "a text without quotes contains a carriage return; quote the text"
    if len(taken) > 1:
        return "unclosed_quote", f"a quote opens here and line {taken[-1][0]} does not close it; close or double it"
    if layout.escape:
        return "malformed_csv", "text follows a quote that closes; put a backslash before a quote inside a text"
    remedy = "double it (or, where backslashes escape quotes, register with --escape backslash)"
    return "malformed_csv", f"a quote inside a quoted text is not doubled; {remedy}"


def _other_width(width: int, header: Header, taken: Sequence[Line]) -> tuple[str, str]:
    found = f"{width} columns where the header has {len(header.names)}"
    if len(taken) > 1:
        return "unclosed_quote", f"a quote opens here; with line {taken[-1][0]}, which closes it, there are {found}"
    return "malformed_csv", f"{found}; quote texts that contain {header.separator!r}"
