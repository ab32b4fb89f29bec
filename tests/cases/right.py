"""What is right for every case: a sentence, and a check of what became of it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.cases.runs import Outcome, run_case

MESSAGE = 300
_EVERYTHING = {"ingest.max_refused_share": 1.0}


@dataclass(frozen=True)
class Right:
    """The right behaviour of a case.

    `stopped`: so many rows are refused that the gate stops the run; `check` then sees a run whose gate lets all pass.
    """

    sentence: str
    check: Callable[[Outcome], bool]
    arguments: Sequence[str] = ()
    stopped: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a case gives beside what is right."""

    right: str
    gives: str
    ok: bool


def judge(name: str) -> Verdict:
    """Run a case. No traceback and no message above 300 characters is right for all of them."""
    right = RIGHT[name]
    first = run_case(name, right.arguments)
    outcomes = [first]
    ok = True
    if right.stopped:
        ok = "max_refused_share" in first.refused
        outcomes.append(run_case(name, right.arguments, _EVERYTHING))
    ok = ok and right.check(outcomes[-1]) and all(map(_bounded, outcomes))
    return Verdict(right.sentence, " / then: ".join(outcome.describe() for outcome in outcomes), ok)


def _bounded(outcome: Outcome) -> bool:
    details = [row.detail for row in outcome.quarantine]
    longest = max(map(len, (outcome.refused, *details)))
    lines = outcome.counts.get("reviews.lines_read", 0)
    kept = sum(outcome.counts.get(f"reviews.{name}", 0) for name in ("ingested", "quarantined", "duplicates", "erased"))
    return not outcome.refused.startswith("Traceback") and longest <= MESSAGE and lines == kept


def whole(rows: int, items: int | None = None) -> Callable[[Outcome], bool]:
    """Every row is read."""
    return lambda o: (
        not o.refused and not o.quarantine and len(o.reviews) == rows and (items is None or len(o.items) == items)
    )


def says(pattern: str) -> Callable[[Outcome], bool]:
    """It is refused with a message like `pattern`."""
    return lambda o: bool(o.refused and not o.refused.startswith("Traceback") and re.search(pattern, o.refused))


def lines(refused: dict[int, str], read: int, detail: str = "", table: str = "reviews") -> Callable[[Outcome], bool]:
    """Just these lines are refused, for these reasons, and so many rows are read."""
    return lambda o: (
        o.reasons(table) == refused
        and len(o.reviews) == read
        and bool(re.search(detail, o.details()))
        and not o.refused
    )


def both(*checks: Callable[[Outcome], bool]) -> Callable[[Outcome], bool]:
    """All of several checks."""
    return lambda o: all(check(o) for check in checks)


def _texts(**expected: str) -> Callable[[Outcome], bool]:
    return lambda o: {item: o.texts().get(item) for item in expected} == expected


_OWN = ("--format", "columns")
_READ = "every row is read"

RIGHT: dict[str, Right] = {
    "bz2": Right(_READ, whole(10)),
    "zip": Right(_READ, whole(10)),
    "gz_empty": Right("refused: it is empty", says("empty")),
    "gz_multi": Right("both members are read", whole(10)),
    "gz_named_json": Right(_READ, whole(10)),
    "gz_plain": Right(_READ, whole(10)),
    "gz_trailing_zeros": Right(_READ, whole(10)),
    "gz_upper": Right(_READ, whole(10)),
    "name_glob": Right(_READ, whole(10)),
    "name_colon": Right(_READ, whole(10)),
    "name_dot": Right("refused: a hidden name", says(r"\.reviews\.json.*begins with")),
    "name_percent": Right(_READ, whole(10)),
    "name_unicode": Right(_READ, whole(10)),
    "dir_csv": Right(
        "the rows of both parts are read", lambda o: not o.refused and o.counts["reviews.lines_read"] == 8
    ),
    "csv_unclosed_quote": Right(
        "line 4 is refused, the other 59 rows are read", lines({4: "unclosed_quote"}, 59, "quote")
    ),
    "csv_bom": Right(_READ, whole(6)),
    "csv_bom_mapped": Right(
        _READ, whole(2), (*_OWN, "--columns", "user_id=customer,item_id=sku,rating=stars,reviewed_at=day")
    ),
    "csv_semicolon": Right(
        "the separator is seen; 4,5 and 31.01.2024 are read or refused with how to say so",
        lambda o: (len(o.reviews) == 2 and not o.quarantine) or bool(re.search(r"4,5|31\.01\.2024", o.refused)),
    ),
    "csv_semicolon_columns": Right(
        "the same with --format columns",
        lambda o: (len(o.reviews) == 1 and not o.quarantine) or bool(re.search(r"4,5|31\.01\.2024", o.refused)),
        _OWN,
    ),
    "tsv_recbole": Right("typed headers are understood", whole(2)),
    "csv_spaces_header": Right("names and values are trimmed", both(whole(1), _texts(x="good"))),
    "csv_title_newline": Right("a line break in a quoted title", whole(2)),
    "csv_crlf_newline": Right(
        "quoted line breaks and doubled quotes",
        both(whole(2), _texts(x='first line second "quoted" line, with comma', y="short")),
    ),
    "csv_cr_only": Right("old line ends are read", whole(3)),
    "csv_inner_quotes": Right(
        "rows with a bare quote inside quotes are refused by line, the other is read",
        lines({2: "malformed_csv", 3: "malformed_csv"}, 1, "quote"),
        stopped=True,
    ),
    "csv_backslash": Right(
        "without --escape: the row is refused and told of it", lines({2: "malformed_csv"}, 2, "--escape"), stopped=True
    ),
    "csv_blank_lines": Right("blank lines are no rows", whole(2)),
    "csv_dup_header": Right("refused: a name twice", says("rating.*(twice|two)|two.*rating")),
    "csv_pandas_index": Right(_READ, whole(2)),
    "csv_header_only": Right("refused: a header and no row", says("header|no row")),
    "csv_empty": Right("refused: it is empty", says("empty")),
    "csv_unmapped_newline": Right("line breaks in a column that is not mapped", whole(5)),
    "csv_cp1252": Right("--encoding", both(whole(2), _texts(x="Schön und “gut”")), ("--encoding", "cp1252")),
    "pq_ns": Right(_READ, whole(3)),
    "pq_us": Right(_READ, whole(3)),
    "pq_types": Right(_READ, whole(2)),
    "pq_micro_int": Right(
        "microseconds are read as such",
        both(whole(1), lambda o: o.reviews[0].reviewed_at.isoformat().startswith("2024-01-31T11:20")),
    ),
    "pq_float_ids": Right(
        "10.0 is the item 10; the row without a user is refused",
        both(
            lines({3: "missing_user_id"}, 3),
            lambda o: o.read() == ["1 10", "123456789 20000001", "2 11"],
        ),
        stopped=True,
    ),
    "pq_bool_rating": Right(
        "a boolean is like or dislike where it is mapped",
        both(whole(2), lambda o: len({row.rating for row in o.reviews}) == 2),
        ("--columns", "rating=recommend"),
    ),
    "pq_binary_text": Right("bytes are text", both(whole(1), _texts(x="good"))),
    "pq_nested": Right(
        "read by the path of the field, or refused naming the column",
        lambda o: whole(2)(o) or says("user")(o),
        ("--columns", "user_id=user.id"),
    ),
    "pq_dot_name": Right("a dot in a name", both(whole(2), _texts(x="hey there")), ("--columns", "text=review.text")),
    "pq_empty": Right("refused: no row", says("no row|empty|row")),
    "pq_mixed_parts": Right("merged", both(whole(2), lambda o: sorted(row.rating for row in o.reviews) == [4.5, 5.0])),
    "pq_missing_col_parts": Right(
        "merged, or refused naming part and column",
        lambda o: both(whole(2), _texts(y="new words"))(o) or says("part-.*text|text.*part-")(o),
    ),
    "ratings": Right(
        "what is no rating on the scale is refused with what was given",
        lambda o: "r04" in {row.item_id for row in o.reviews} and "5 stars" in o.details(),
        ("--scale", "stars"),
        stopped=True,
    ),
    "ratings_ten": Right(
        "a scale of ten: proposed or refused at the gate, never half lost",
        lambda o: whole(200)(o) or says("scale|max_refused_share")(o),
    ),
    "items_all_unknown": Right("refused: names the items, with an example", says(r"item.*\b1[23]\b|\b1[23]\b.*item")),
    "items_unknown": Right(
        "the unknown half is refused, and the gate stops", lines({3: "unknown_item"}, 1), stopped=True
    ),
    "items_cleaning": Right(
        "titles keep their words",
        lambda o: (
            o.titles().get("t00") == "Privacy film for any window. 2 pack"
            and o.titles().get("t01") == "Leather folder for your document. A4"
            and "By Terry" in {row.brand for row in o.items}
        ),
    ),
    "html_reviews": Right(
        "markup goes, words stay",
        lambda o: o.refused == "" and len(o.reviews) == 12,
    ),
    "dates": Right(
        "stated or refused, never guessed",
        lambda o: (
            bool({"d00", "d01", "d02"} <= {row.item_id for row in o.reviews})
            and not {"d07", "d18", "d20", "d21", "d22"} & {row.item_id for row in o.reviews}
        ),
        stopped=True,
    ),
    "ids_odd": Right("ids are opaque", lambda o: not o.refused and "a\\b" in {row.user_id for row in o.reviews}),
    "json_nan": Right(
        "NaN is a missing value; Infinity is refused as a rating; no item is lost",
        both(
            lambda o: set(o.reasons()) == {4} and len(o.reviews) == 3 and "Infinity" in o.details(),
            lambda o: len(o.items) == 4 and not o.reasons("items"),
        ),
        stopped=True,
    ),
    "json_types": Right(
        "numbers as text are read, a list as text and no rating are refused; items keep their ids",
        both(
            lines({9: "wrong_type", 11: "bad_rating"}, 9, "reviewText is ARRAY"),
            lambda o: {"I0", "I1", "I2", "I3", "I4", "123"} == set(o.titles()) and o.titles()["I0"] == "1984",
        ),
    ),
    "json_dup_keys": Right(
        "each line with its own reason",
        both(
            lines(dict.fromkeys((1, 2, 3, 4, 6), "malformed_json"), 1, "'overall' comes twice"),
            lambda o: bool(re.search("second", o.details())),
        ),
        stopped=True,
    ),
    "json_huge": Right("the long line is refused, the gate stops", lines({2: "line_too_long"}, 2), stopped=True),
    "json_crlf": Right(_READ, whole(4)),
    "json_bom": Right(_READ, whole(4)),
    "json_linesep": Right(_READ, whole(3)),
    "json_array": Right("refused in one sentence that says how", says("array")),
    "json_array_oneline": Right("refused in one sentence that says how", says("array")),
    "json_goodreads": Right("refused in one sentence that says how", says("--columns|CSV")),
    "json_2018_first_unverified": Right(
        "told from more than one line",
        both(whole(6, 5), lambda o: {row.helpful_votes for row in o.reviews} == {None, 7}),
    ),
    "json_2023": Right(
        "bad times and rating 0 are refused; an empty parent is no id, the child is, of which nothing is known",
        lambda o: (
            o.reasons() == {3: "bad_date", 4: "bad_rating", 6: "unknown_item", 7: "unknown_item", 8: "bad_date"}
            and "item C5" in o.details()
        ),
        stopped=True,
    ),
}
