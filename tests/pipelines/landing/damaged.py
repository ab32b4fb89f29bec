"""Landing files with every kind of damage seen so far, line by line."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Lines = Mapping[str, Callable[[int], str]]


@dataclass(frozen=True)
class Kinds:
    """Kinds of rows: those to read, to refuse and to skip; each gives one or more lines for a row number."""

    good: Lines
    bad: Lines
    none: Lines
    header: str = ""

    def names(self) -> list[str]:
        """All kinds."""
        return [*self.good, *self.bad, *self.none]

    def file(self, kinds: Sequence[str], separator: str = ",") -> bytes:
        """A file with rows of these kinds."""
        every = {**self.good, **self.bad, **self.none}
        lines = [every[kind](n) for n, kind in enumerate(kinds)]
        text = "\n".join([self.header, *lines, ""] if self.header else lines)
        return text.replace(",", separator).encode("utf-8", "surrogateescape")


_CSV_GOOD: Lines = {
    "plain": lambda n: f"u{n},i{n % 9},4,2024-01-01,plain words {n}",
    "quoted": lambda n: f'u{n},i{n % 9},5,2024-01-01,"quoted, ""doubled"" {n}"',
    "several lines": lambda n: f'u{n},i{n % 9},5,2024-01-01,"one\n\n  \ntwo, {n}"',
    "carriage returns": lambda n: f'u{n},i{n % 9},3,2024-01-01,"one\r\ntwo"\r',
    "empty": lambda n: f'u{n},i{n % 9},3,2024-01-01,""',
    "inch": lambda n: f'u{n},i{n % 9},3,2024-01-01,7" disc',
}
_CSV_BAD: Lines = {
    "open quote": lambda n: f'u{n},i{n % 9},4,2024-01-01,"never closed',
    "bare quote": lambda n: f'u{n},i{n % 9},4,2024-01-01,"a 5" pipe',
    "backslash": lambda n: f'u{n},i{n % 9},4,2024-01-01,"said \\"wow\\""',
    "too many": lambda n: f"u{n},i{n % 9},4,2024-01-01,a,b,c",
    "too few": lambda n: f"u{n},i{n % 9}",
    "no utf-8": lambda n: f"u{n},i{n % 9},4,2024-01-01,caf\udce9",
    "long": lambda n: f"u{n},i{n % 9},4,2024-01-01,{'x' * 3000}",
    "bare return": lambda n: f"u{n},i{n % 9},4,2024-01-01,one\rtwo",
}
CSV = Kinds(
    _CSV_GOOD, _CSV_BAD, {"blank": lambda n: "", "spaces": lambda n: " \t "}, "user_id,item_id,rating,reviewed_at,text"
)


def _record(n: int) -> dict[str, object]:
    """A review that every release understands."""
    return {
        "reviewerID": f"u{n}", "user_id": f"u{n}", "asin": f"i{n % 9}", "parent_asin": f"i{n % 9}", "overall": 4.0,
        "rating": 4.0, "unixReviewTime": 1483574400 + n, "timestamp": 1483574400000 + n, "reviewText": f"words {n}",
        "text": f"words {n}", "verified": True,
    }  # fmt: skip


def _with(**change: object) -> Callable[[int], str]:
    return lambda n: json.dumps(_record(n) | change)


_DEEP = "[" * 900 + "]" * 900
_JSON_GOOD: Lines = {
    "plain": lambda n: json.dumps(_record(n)),
    "emoji": _with(reviewText="\U0001f600", text="\U0001f600"),
    "brackets": _with(reviewText="[" * 200, text="{" * 200),
    "NaN": _with(vote=float("nan"), helpful_vote=float("nan")),
    "carriage return": lambda n: json.dumps(_record(n)) + "\r",
    "other ends": lambda n: json.dumps(_record(n) | {"text": "a\u2028b\u0085c"}, ensure_ascii=False),
}
_JSON_BAD: Lines = {
    "infinite": _with(overall=float("inf"), rating=float("inf")),
    "no rating": _with(overall=None, rating=None),
    "object": _with(overall={"stars": 5}, rating={"stars": 5}),
    "no user": _with(reviewerID=" ", user_id=" "),
    "cut": lambda n: json.dumps(_record(n))[: 20 + n % 50],
    "two": lambda n: json.dumps(_record(n)) * 2,
    "comma": lambda n: json.dumps(_record(n))[:-1] + ",}",
    "comment": lambda n: "// comment",
    "list": lambda n: json.dumps([_record(n)]),
    "twice": lambda n: json.dumps(_record(n))[:-1] + f', "asin": "i{n}"}}',
    "deep": lambda n: json.dumps(_record(n))[:-1] + f', "x": {_DEEP}}}',
    "surrogate": _with(reviewText="\ud83d", text="\ud83d"),
    "no utf-8": lambda n: json.dumps(_record(n) | {"reviewText": "caf_", "text": "caf_"}).replace("caf_", "caf\udce9"),
    "long": _with(reviewText="x" * 3000, text="x" * 3000),
    "open python": lambda n: "{'reviewerID': " + "(" * 200,
    "long key": lambda n: '{"' + "k" * 1500 + '": 1, "' + "k" * 1500 + '": 2}',
}
JSON = Kinds(_JSON_GOOD, _JSON_BAD, {"blank": lambda n: "", "spaces": lambda n: " \t\r"})
