"""Whom an erasure forgets: the ids of a file as they stand in it, and never the name of a file that is not there."""

from pathlib import Path

import pytest

from infra.errors import SettingError
from pipelines.stages import erasure
from pipelines.stages.erasure import ErasureSettings


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_an_id_is_what_stands_on_a_line_whatever_is_in_it(tmp_path: Path, start: str, end: str) -> None:
    ids = ("first", "u\x85y", "u\u2028y", "a\x0bb", "a\x1cb", "two words")
    (tmp_path / "users.txt").write_bytes((start + end.join((*ids, "", " last "))).encode())
    found = ErasureSettings(users_file=str(tmp_path / "users.txt")).ids()
    assert found == {*ids, "last"}


def test_a_file_of_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_bytes("\ufeff\r\n".encode())
    with pytest.raises(SettingError, match="name nobody"):
        ErasureSettings(users_file=str(tmp_path / "users.txt")).ids()


@pytest.mark.parametrize("users", [["/nonexist"], ["users.txt"], ["lists/u.CSV"], ["u1", "./users"]])
def test_a_file_that_is_not_there_is_no_id(users: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        erasure.main(["--dataset=shop", "--users", *users])
    assert ended.value.code == 2
    assert "there is no file" in capsys.readouterr().err


def test_ids_on_the_command_line_are_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(erasure, "run", lambda request: asked.append(request) or _stop())
    with pytest.raises(ValueError, match="far enough"):
        erasure.main(["--dataset=shop", "--users", "jane.doe", "j@shop.example", "7"])
    assert asked[0].overrides == {"erasure.users": ["jane.doe", "j@shop.example", "7"]}


def _stop() -> None:
    raise ValueError("far enough")
