"""Messages are bounded, whatever they quote."""

import pytest

from infra.errors import SettingError
from schemas.errors import LONGEST_MESSAGE, DataError, GateFailed, bounded
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage


def test_both_ends_of_a_long_message_can_be_read():
    assert bounded("short") == "short"
    assert bounded("x" * LONGEST_MESSAGE) == "x" * LONGEST_MESSAGE
    for error in (DataError, GateFailed):
        told = str(error(f"file r.csv: {'y' * 1_000_000}; register again"))
        assert len(told) == LONGEST_MESSAGE
        assert told.startswith("file r.csv: yyy")
        assert told.endswith("yyy; register again")


def test_a_stage_ends_with_one_bounded_line(tmp_path, capsys):
    def work(request: StageRequest):
        raise SettingError("z" * 1_000_000)

    report = tmp_path / "report.json"
    with pytest.raises(SystemExit):
        run_stage("ingest", work, ["--dataset=shop", "--partition=2026-01-31", f"--report-uri={report}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) == LONGEST_MESSAGE
    assert line.startswith("ingest: SettingError: zzz")
    assert (tmp_path / "report.json.error").read_text() == line
