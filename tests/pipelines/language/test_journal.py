"""A journal that a full disk or a crash has cut, also inside of a character."""

import datetime as dt

import pytest

from infra import storage
from infra.storage import name_of
from pipelines.language.journal import answers_of, held, journal, journals, left_behind

NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)


def rows(count):
    return [{"request_key": f"k{n}", "text": f"Grüße 🎸 {n}", "answered_at": NOW} for n in range(count)]


def test_a_cut_journal_gives_what_is_whole_and_counts_what_is_not(tmp_path):
    path = tmp_path / "job-0-x.jsonl"
    with journal(str(path.with_suffix(""))) as add:
        for row in rows(3):
            add(row)
    whole = path.read_bytes()
    for cut in range(2, len(whole.splitlines()[-1]) + 1):
        path.write_bytes(whole[:-cut])
        assert set(answers_of(str(tmp_path), "job-0")) == {"k0", "k1"}
        ((found, left),) = left_behind(str(tmp_path))
        assert (found, left.rows, left.lost) == (str(path), rows(2), 1)


def test_a_journal_that_is_no_journal_stops_nobody(tmp_path):
    for number, content in enumerate((b"", b"\0" * 100, b"\xff\xfe\n[1]\n{}\nnull\n")):
        (tmp_path / f"job{number}-x.jsonl").write_bytes(content)
    with journal(str(tmp_path / "job9-y")) as add:
        add(rows(1)[0] | {"text": "\ud83d alone"})
    found = {name_of(path): (len(left.rows), left.lost) for path, left in left_behind(str(tmp_path))}
    assert found == {"job0-x.jsonl": (0, 0), "job1-x.jsonl": (0, 1), "job2-x.jsonl": (0, 4), "job9-y.jsonl": (1, 0)}


def test_who_goes_on_with_a_cut_journal_loses_no_answer_of_his_own(tmp_path):
    path = tmp_path / "job-0-x.jsonl"
    path.write_bytes('{"request_key": "k9", "text": "Gr\u00fc'.encode()[:-1])
    with journal(str(path.with_suffix(""))) as add:
        add(rows(1)[0])
    assert set(answers_of(str(tmp_path), "job-0")) == {"k0"}


@pytest.fixture(params=["path", "s3"])
def folder(request, tmp_path):
    return str(tmp_path) if request.param == "path" else f"{request.getfixturevalue('bucket')}/journal"


def test_every_answer_is_kept_at_once_and_taken_over_when_its_job_is_gone(folder, monkeypatch):
    monkeypatch.setattr("infra.leases.TTL_S", 1.0)
    with held(folder, "job"):
        with journal(f"{folder}/job-0-x") as add:
            for number, row in enumerate(rows(150)):
                add(row)
                assert len(answers_of(folder, "job-0")) == number + 1 or number % 40
        assert answers_of(folder, "job-1") == {}
        assert [left for _, left in left_behind(folder)] == [], "its job is alive"
        kept = journals(folder, "job-0")
        assert len(kept) == (1 if storage.is_local(folder) else 3)
    found = [(address, left) for address, left in left_behind(folder) if storage.remove(address) is None]
    assert [address for address, _ in found] == kept
    assert sum(left.lost for _, left in found) == 0
    assert [row for _, left in found for row in left.rows] == rows(150)
    assert journals(folder) == []
    assert not storage.exists(f"{folder}/job.lock")
