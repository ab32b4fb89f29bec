import io
import logging
import re
from contextlib import redirect_stdout

import pytest

from infra import masks, progress
from infra.progress import LOGGER, Progress, phase, phased, speak_for


@pytest.fixture
def spoken(monkeypatch, capsys):
    """What a stage called ingest has said so far."""
    monkeypatch.setattr(LOGGER, "handlers", [])
    monkeypatch.setattr(LOGGER, "level", logging.NOTSET)
    speak_for("ingest")
    said = []

    def so_far():
        said.extend(capsys.readouterr().out.splitlines())
        return said

    return so_far


def test_a_phase_says_when_it_begins_and_what_it_counted(spoken):
    with phase("gate of reviews") as counts:
        assert spoken() == ["ingest: gate of reviews ..."]
        counts |= {"rows": 3502, "warnings": 0}
    assert re.fullmatch(r"ingest: gate of reviews: 3,502 rows, 0 warnings, \d+\.\d s", spoken()[-1])


def test_a_function_can_be_a_phase(spoken):
    @phased("reading", lambda found: {"items": len(found)})
    def read(items):
        """Read."""
        return items

    assert read(["a", "b"]) == ["a", "b"]
    assert read.__doc__ == "Read."
    assert [line.partition(", ")[0] for line in spoken()] == ["ingest: reading ...", "ingest: reading: 2 items"]


def test_a_phase_that_fails_names_the_error_and_lets_it_pass(spoken):
    with pytest.raises(KeyError), phase("gate of items"):
        raise KeyError
    assert spoken()[-1].startswith("ingest: gate of items: stopped by KeyError after ")


def test_nothing_secret_is_said(spoken, monkeypatch):
    monkeypatch.setattr(masks, "_hidden", {"sk-1234567890": None})
    with phase("asking sk-1234567890 at https://me:hunter22@host/") as counts:
        counts["answers to sk-1234567890"] = 1
    assert len(spoken()) == 2
    assert not any("1234567890" in line or "hunter22" in line for line in spoken())


def test_lines_go_where_standard_output_is_now(spoken):
    other = io.StringIO()
    with redirect_stdout(other), phase("elsewhere"):
        pass
    assert spoken() == []
    assert other.getvalue().count("elsewhere") == 2


def test_long_work_is_told_now_and_then(spoken, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    told = Progress(str(tmp_path), "train")
    for step in range(61):
        told.update(step * 50, 3000, "loss 2.31")
        now[0] += 1
    assert spoken() == [f"ingest: {done:,} of 3,000, loss 2.31" for done in (750, 1500, 2250, 3000)]
