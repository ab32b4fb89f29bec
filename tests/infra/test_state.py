import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra import state
from infra.errors import DamagedFile
from infra.state import append_to, kept_secret, line_of, read_json, read_lines, replaced, write_json, write_text
from schemas.dataset import Dataset
from schemas.errors import DataError
from schemas.failure import read_failure
from schemas.handoff import StageReport, read_report, write_report

ROWS = [{"request_key": f"k{number}", "text": "Grüße 🎸 Ж"} for number in range(4)]


def test_many_writers_and_readers_meet_only_whole_files(tmp_path):
    path = tmp_path / "one" / "state.json"
    write_json(path, [0] * 500)
    over = threading.Event()

    def read():
        seen = 0
        while not over.is_set():
            assert len(set(read_json(path, "none"))) == 1
            seen += 1
        return seen

    with ThreadPoolExecutor(6) as several:
        readers = [several.submit(read) for _ in range(2)]
        writers = [several.submit(write_json, path, [n] * 500, lasting=False) for n in range(300)]
        for writer in writers:
            writer.result()
        over.set()
        assert all(reader.result() for reader in readers)
    assert os.listdir(path.parent) == ["state.json"]


def test_a_full_disk_leaves_the_old_file_and_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_text(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    with pytest.raises(ZeroDivisionError), replaced(path) as beside:
        beside.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\x00\x00", b"\xff\xfe", b"[1]", b"null"])
def test_what_cannot_be_read_is_named_with_its_remedy(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"state\.json cannot be read \(.*\): start anew") as found:
        read_json(path, "start anew", lambda raw: raw["a"])
    assert len(str(found.value)) < 300
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", "start anew")


@pytest.mark.parametrize("left", ["", "  \n", "0" * 63, "nonsense", b"\xff\xff"])
def test_a_secret_that_is_none_is_made_again_and_private(tmp_path, left):
    path = tmp_path / "token"
    path.write_bytes(left if isinstance(left, bytes) else left.encode())
    found = kept_secret(path, lambda: "ab" * 32, ".{64}")
    assert found == path.read_text() == "ab" * 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert kept_secret(path, lambda: "cd" * 32, ".{64}") == found
    assert path.stat().st_mode & 0o777 == 0o600


def test_processes_that_make_a_secret_at_once_get_the_same(tmp_path):
    numbers = iter(range(100))
    with ThreadPoolExecutor(8) as several:
        found = list(several.map(lambda _: kept_secret(tmp_path / "t", lambda: f"{next(numbers):03}", ".+"), range(40)))
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["t"]


def test_a_file_of_lines_cut_anywhere_loses_its_last_line_and_no_other(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = "".join(map(line_of, ROWS)).encode()
    last = len(line_of(ROWS[-1]).encode())
    for cut in range(last + 1):
        path.write_bytes(whole[: len(whole) - cut])
        found = read_lines(path)
        assert (found.rows, found.lost) == ((ROWS, 0) if cut < 2 else (ROWS[:-1], int(cut < last)))
        with append_to(path) as file:
            file.write(line_of(ROWS[0]))
        found = read_lines(path)
        assert found.rows == (ROWS if cut < 2 else ROWS[:-1]) + ROWS[:1]
        assert found.lost == int(1 < cut < last)


def test_a_lone_surrogate_and_a_damaged_line_cost_no_other_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    with append_to(path) as file:
        file.write(line_of({"text": "\ud83d"}) + "\0\0\0\n" + "[" * 5000 + "\n" + line_of(ROWS[0]))
    found = read_lines(path, lambda row: {**row})
    assert (found.rows, found.lost) == ([{"text": "\ud83d"}, ROWS[0]], 2)


def test_registrations_reports_and_failures_that_are_cut_are_named(tmp_path):
    Dataset(name="shop", format="columns", reviews="r.csv").save(str(tmp_path))
    for content in ("", '{"name": "shop", "for', '{"name": "shop", "surprise": 1}'):
        (tmp_path / "shop.json").write_text(content)
        with pytest.raises(DamagedFile, match=r"shop\.json cannot be read .*register the data set shop again"):
            Dataset.load(str(tmp_path), "shop")
    report = tmp_path / "report.json"
    write_report(str(report), StageReport(stage="s", status="done"))
    report.write_bytes(report.read_bytes()[:20])
    with pytest.raises(DataError, match=r"report\.json is damaged; delete it and run the stage again"):
        read_report(str(report))
    (tmp_path / "ingest.json").write_text('{"task_id": "inge')
    told = read_failure(str(tmp_path / "ingest.json"))
    assert (told.task_id, told.page) == ("ingest", "")
    assert "ingest.json cannot be read" in told.message
    assert json.loads(json.dumps(vars(told)))
