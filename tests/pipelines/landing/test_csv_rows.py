"""CSV rows: quotes, separators, headers, and every line accounted for. No Spark."""

import pytest

from pipelines.landing.csv_rows import BLANK, HEADER, Header, Layout, Row, read_rows
from schemas.errors import DataError

HEAD = "u,i,t\n"


def _rows(text: str, layout: Layout | None = None, max_bytes: int = 1000) -> list[Row]:
    lines = [line.encode("utf-8", "surrogateescape") for line in text.removesuffix("\n").split("\n")]
    rows = list(read_rows(((n, line, len(line)) for n, line in enumerate(lines, 1)), layout or Layout(), max_bytes))
    assert [row.line for row in rows] == [1 + sum(row.lines for row in rows[:n]) for n in range(len(rows))]
    assert sum(row.lines for row in rows) == len(lines)
    assert all(len(row.detail) < 200 for row in rows)
    assert rows[0].reason == HEADER
    return rows[1:]


def _told(text: str, **options: object) -> list[tuple[int, int, str]]:
    return [(row.line, row.lines, row.reason) for row in _rows(text, **options)]


def test_an_open_quote_costs_its_line_and_no_other():
    rows = _rows(HEAD + 'a,b,c\na,b,"open\n' + "d,e,f\n" * 20)
    assert [row.reason for row in rows] == ["", "unclosed_quote", *[""] * 20]
    assert rows[1].line == 3
    # Found at once where a later row has quotes, and after the limit where none has.
    assert _told(HEAD + 'a,b,"open\nd,e,f\ng,h,"closed"\n') == [(2, 1, "unclosed_quote"), (3, 1, ""), (4, 1, "")]
    assert _told(HEAD + 'a,b,"open\n' + "d,e,f\n" * 30, max_bytes=50)[:2] == [(2, 1, "unclosed_quote"), (3, 1, "")]
    assert _told(HEAD + 'a,b,"open\nd,e,f\ng",h,i\n') == [(2, 1, "unclosed_quote"), (3, 1, ""), (4, 1, "")]


def test_quoted_line_breaks_and_blank_lines_mix():
    text = "".join(f'a,b,"one\n\n{n}"\n\n   \n' for n in range(50))
    rows = _rows(HEAD + text)
    assert [row.fields for row in rows if not row.reason] == [["a", "b", f"one\n\n{n}"] for n in range(50)]
    assert sum(row.reason == BLANK for row in rows) == 100


def test_quotes_by_the_rules_and_against_them():
    ok = HEAD + 'a,b,"he said ""wow"", twice"\na,b,7" disc\na,b,""\n"a,b",c,"x\r\ny"\r\n'
    assert [row.fields[2] for row in _rows(ok)] == ['he said "wow", twice', '7" disc', "", "x\r\ny"]
    bad = _rows(HEAD + 'a,b,"a 5" pipe"\na,b,c,d\na,b\na,b\rc,d\n')
    assert {row.reason for row in bad} == {"malformed_csv"}
    assert "not doubled" in bad[0].detail
    assert "4 columns where the header has 3" in bad[1].detail
    assert "carriage return" in bad[3].detail
    slashed = HEAD + 'a,b,"he said \\"wow\\""\n'
    assert "--escape backslash" in _rows(slashed)[0].detail
    assert _rows(slashed, layout=Layout(escape="\\"))[0].fields[2] == 'he said "wow"'
    assert _rows(HEAD + "a,b,caf\udce9\n")[0].fields[2] == "caf\udce9"  # whether the column counts is told later


def test_an_escape_in_front_of_the_last_quote_swallows_no_row():
    text = HEAD + 'a,b,"bad \\"\nc,d,"good"\ne,f,"say \\"so\\""\n'
    rows = _rows(text, layout=Layout(escape="\\"))
    assert [row.reason for row in rows] == ["unclosed_quote", "", ""]
    assert [row.fields[2] for row in rows[1:]] == ["good", 'say "so"']
    told = _rows(HEAD + 'a,b,"x" y\na,b,"x\\\ny"\n', layout=Layout(escape="\\"))
    assert "put a backslash before a quote" in told[0].detail
    assert told[1].fields[2] == "x\ny"


@pytest.mark.parametrize("line", ['x","b', 'a,b,Monitor 24","sharp', 'a,b,"open'])
def test_a_quote_in_every_line_that_never_closes_costs_each_line_a_few_reads(line: str):
    reads = 0

    class Counted(bytes):
        def decode(self, *given: str) -> str:
            nonlocal reads
            reads += 1
            return super().decode(*given)

    lines = ((number, Counted(text), len(text)) for number, text in enumerate([b"u,i,t", *[line.encode()] * 2000], 1))
    rows = list(read_rows(lines, Layout(), 1 << 20))
    assert (len(rows), {row.reason for row in rows[1:]} - {"malformed_csv"}) == (2001, {"unclosed_quote"})
    assert reads < 12 * 2000


def test_lines_above_the_limit():
    assert _told(HEAD + "a,b," + "x" * 2000 + "\na,b,c\n") == [(2, 1, "line_too_long"), (3, 1, "")]


@pytest.mark.parametrize(
    ("line", "names", "separator"),
    [
        ("\ufeffuser;item;note, long\r\n", ("user", "item", "note, long"), ";"),
        (
            "user_id:token\titem_id:token\trating:float\tgenre:token_seq",
            ("user_id", "item_id", "rating", "genre"),
            "\t",
        ),
        ("a|b|c", ("a", "b", "c"), "|"),
        ('"user, id", item , rating', ("user, id", "item", "rating"), ","),
        ("a:token,b", ("a:token", "b"), ","),
        (",user,item", ("", "user", "item"), ","),
        ("one", ("one",), ","),
    ],
)
def test_headers(line: str, names: tuple[str, ...], separator: str):
    header = Header.read(line, Layout())
    assert (header.names, header.separator) == (names, separator)


def test_headers_that_are_refused():
    with pytest.raises(DataError, match="'rating' twice"):
        Header.read("a,rating,rating", Layout()).positions(["a"], "r.csv")
    many = ",".join(f"column number {n}" for n in range(1000))
    with pytest.raises(DataError, match=r"no column 'x'; the file has: .* and 988 more") as refused:
        Header.read(many, Layout()).positions(["x"], "r.csv")
    assert len(str(refused.value)) <= 300
    for wrong in (
        *({"encoding": name} for name in ("nope", "rot13", "hex", "undefined", "a\0b")),
        {"separator": ",,"},
        {"separator": '"'},
        {"escape": "x"},
    ):
        with pytest.raises(DataError):
            Layout(**wrong)


def test_a_byte_order_mark_in_the_middle_belongs_to_no_value():
    """Files that were put together with cat."""
    assert _rows(HEAD + "a,b,c\n\ufeffd,e,f\n")[1].fields == ["d", "e", "f"]


def test_spaces_after_separators_belong_to_no_value():
    rows = _rows('u, i, t\na, b, "c, d"\n')
    assert rows[0].fields == ["a", "b", "c, d"]
