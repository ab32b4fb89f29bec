"""Ids are found inside texts, whatever separates them, and never as part of a longer word."""

import json
import time

import pytest

from pipelines.forgetting.search import LONGEST, IdSearch, KeySearch
from schemas.erasures import user_key

IDS = ("jane@shop.example", "o'neil, pat|7", "@bob_", "Ünal-9", 'a"b', "7", "two words", "x" * LONGEST, "a\\b", "李明")


@pytest.mark.parametrize("user", IDS)
def test_an_id_is_found_between_any_separators_by_itself_and_by_its_key(user: str) -> None:
    lines = [f"i1{s}{user}{s}5" for s in (",", ";", "|", "\t", " ", "@", "--", "::", "/", "=")]
    lines += [user, f'"{user}', f"{user}@2", f"{user}|3|1"]
    lines += [json.dumps({"user": user, "n": 1})[:-3], json.dumps({"user": user}, ensure_ascii=False)]
    lines += ['1,"' + user.replace('"', '""') + '",5']
    by_id, by_key = IdSearch([user]), KeySearch([user_key(user), user_key("another")])
    for line in lines:
        assert by_id.keys_in(line) == {user_key(user)}, line
        assert by_key.holds(line), line


@pytest.mark.parametrize("user", ["joy😀", "tab\there", "line\nbreak", "café", "a'b", "\x1fq", "😀1", "back\\new"])
def test_an_id_is_found_in_what_json_python_and_sql_make_of_it(user: str) -> None:
    written = json.dumps({"user": user}), repr({"user": user}), ascii({"user": user})
    for line in (*written, written[0].replace('"', '""'), "'" + user.replace("'", "''") + "',5"):
        assert IdSearch([user]).keys_in(line) == {user_key(user)}, line
        assert KeySearch([user_key(user)]).holds(line), line
    for broken in ("\\ud83d", "\\U99999999", "\\x4", "\\", "\\u12"):
        assert not KeySearch([user_key(user)]).holds(broken)


def test_an_id_inside_of_a_longer_word_is_somebody_else() -> None:
    for line in ("jane@shop.example2", "xjane@shop.example", "jane at shop.example", "", "Jane@shop.example"):
        assert not IdSearch(["jane@shop.example"]).keys_in(line)
        assert not KeySearch([user_key("jane@shop.example")]).holds(line)
    assert not IdSearch([]).keys_in("anything")
    assert not KeySearch([]).holds("anything")


def test_a_line_as_long_as_quarantine_keeps_them_costs_little_whatever_is_in_it() -> None:
    search = KeySearch([user_key(f"user-{n}") for n in range(20_000)])
    for text in ("a" * 2000, "a." * 1000, "." * 2000, "\\u0061" * 300, "ab cd, " * 285):
        started = time.process_time()
        assert not search.holds(text)
        assert time.process_time() - started < 1.5
