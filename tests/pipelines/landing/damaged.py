"""Landing files with damage of every kind that people have brought, line by line."""

import json
from collections.abc import Callable, Sequence

# A line, or several, of a CSV file with the columns user, item, rating, day and text; n tells rows apart.
CSV_GOOD: dict[str, Callable[[int], str]] = {
    "plain": lambda n: f"u{n},i{n % 9},4,2024-01-01,plain words {n}",
    "quoted": lambda n: f'u{n},i{n % 9},5,2024-01-01,"quoted, ""doubled"" {n}"',
    "several lines": lambda n: f'u{n},i{n % 9},5,2024-01-01,"one\n\n  \ntwo, {n}"',
    "carriage returns": lambda n: f'u{n},i{n % 9},3,2024-01-01,"one\r\ntwo"\r',
    "empty": lambda n: f'u{n},i{n % 9},3,2024-01-01,""',
    "inch": lambda n: f'u{n},i{n % 9},3,2024-01-01,7" disc',
}
CSV_BAD: dict[str, Callable[[int], str]] = {
    "open quote": lambda n: f'u{n},i{n % 9},4,2024-01-01,"never closed',
    "bare quote": lambda n: f'u{n},i{n % 9},4,2024-01-01,"a 5" pipe',
    "backslash": lambda n: f'u{n},i{n % 9},4,2024-01-01,"said \\"wow\\""',
    "too many": lambda n: f"u{n},i{n % 9},4,2024-01-01,a,b,c",
    "too few": lambda n: f"u{n},i{n % 9}",
    "no utf-8": lambda n: f"u{n},i{n % 9},4,2024-01-01,caf\udce9",
    "long": lambda n: f"u{n},i{n % 9},4,2024-01-01,{'x' * 3000}",
    "bare return": lambda n: f"u{n},i{n % 9},4,2024-01-01,one\rtwo",
}
CSV_NONE: dict[str, Callable[[int], str]] = {"blank": lambda n: "", "spaces": lambda n: " \t "}
CSV_HEADER = "user_id,item_id,rating,reviewed_at,text"


def csv_file(kinds: Sequence[str], separator: str = ",") -> bytes:
    """A file with these kinds of rows."""
    every = CSV_GOOD | CSV_BAD | CSV_NONE
    text = "\n".join([CSV_HEADER, *(every[kind](n) for n, kind in enumerate(kinds))]) + "\n"
    return text.replace(",", separator).encode("utf-8", "surrogateescape")


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
JSON_GOOD: dict[str, Callable[[int], str]] = {
    "plain": lambda n: json.dumps(_record(n)),
    "emoji": _with(reviewText="\U0001f600", text="\U0001f600"),
    "brackets": _with(reviewText="[" * 200, text="{" * 200),
    "NaN": _with(vote=float("nan"), helpful_vote=float("nan")),
    "carriage return": lambda n: json.dumps(_record(n)) + "\r",
    "other ends": lambda n: json.dumps(_record(n) | {"text": "a\u2028b\u0085c"}, ensure_ascii=False),
}
JSON_BAD: dict[str, Callable[[int], str]] = {
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
JSON_NONE: dict[str, Callable[[int], str]] = {"blank": lambda n: "", "spaces": lambda n: " \t\r"}


def json_file(kinds: Sequence[str]) -> bytes:
    """A file with these kinds of lines."""
    every = JSON_GOOD | JSON_BAD | JSON_NONE
    return "\n".join(every[kind](n) for n, kind in enumerate(kinds)).encode("utf-8", "surrogateescape")
