"""A journal that a full disk or a crash has cut, also inside of a character."""

import datetime as dt

from pipelines.language.journal import answers_of, journal, left_behind

NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)


def rows(count):
    return [{"request_key": f"k{n}", "text": f"Grüße 🎸 {n}", "answered_at": NOW} for n in range(count)]


def test_a_cut_journal_gives_what_is_whole_and_counts_what_is_not(tmp_path):
    path = tmp_path / "job-0-x.jsonl"
    with journal(path) as add:
        for row in rows(3):
            add(row)
    whole = path.read_bytes()
    for cut in range(2, len(whole.splitlines()[-1]) + 1):
        path.write_bytes(whole[:-cut])
        assert set(answers_of(tmp_path / "job-0")) == {"k0", "k1"}
        ((found, left),) = left_behind(tmp_path)
        assert (found, left.rows, left.lost) == (path, rows(2), 1)


def test_a_journal_that_is_no_journal_stops_nobody(tmp_path):
    for number, content in enumerate((b"", b"\0" * 100, b"\xff\xfe\n[1]\n{}\nnull\n")):
        (tmp_path / f"job{number}-x.jsonl").write_bytes(content)
    with journal(tmp_path / "job9-y.jsonl") as add:
        add(rows(1)[0] | {"text": "\ud83d alone"})
    found = {path.name: (len(left.rows), left.lost) for path, left in left_behind(tmp_path)}
    assert found == {"job0-x.jsonl": (0, 0), "job1-x.jsonl": (0, 1), "job2-x.jsonl": (0, 4), "job9-y.jsonl": (1, 0)}


def test_who_goes_on_with_a_cut_journal_loses_no_answer_of_his_own(tmp_path):
    path = tmp_path / "job-0-x.jsonl"
    path.write_bytes('{"request_key": "k9", "text": "Gr\u00fc'.encode()[:-1])
    with journal(path) as add:
        add(rows(1)[0])
    assert set(answers_of(tmp_path / "job-0")) == {"k0"}
