import json
import re

import pytest

from schemas.errors import DataError
from schemas.handoff import Handoff, StageReport, read_report, write_report
from schemas.run_identity import config_hash
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage


def request(**changes):
    base = {
        "stage": "train",
        "dataset": "world",
        "partition": "2026-01-31",
        "recipe": "sasrec",
        "dag": "daily_retrain",
        "overrides": {"sasrec.epochs": 3, "sasrec.lr": 0.1},
        "inputs": {"sequences": Handoff(table="sequences", uri="/w/sequences", version=4, rows=10, schema_hash="a")},
        "upstream": {"semantic_ids.codebook": "v1"},
    }
    return StageRequest(**(base | changes))


def test_config_hash_ignores_the_order_of_keys_and_sees_values():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})


@pytest.mark.parametrize(
    "change",
    [
        {"partition": "2026-02-01"},
        {"recipe": "tiger"},
        {"generation": 1},
        {"dag": "train_recipe"},
        {"dataset": "other"},
        {"overrides": {"sasrec.epochs": 4}},
        {"inputs": {"sequences": Handoff(table="sequences", uri="/w/s", version=5, rows=10, schema_hash="a")}},
        {"upstream": {}},
        {"profile_hash": "x"},
    ],
)
def test_other_work_has_another_identity(change):
    assert request(**change).identity() != request().identity()


def test_the_report_address_is_no_part_of_the_identity():
    assert request(report_uri="/tmp/r.json").identity() == request().identity()


def test_an_identity_is_safe_in_addresses_and_file_names():
    key = request(dag="daily retrain/ü").identity().key()
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", key)
    assert request().identity().key() == "daily_retrain--2026-01-31--train-sasrec--" + (
        request().identity().config_hash + "--g0"
    )


def test_a_request_survives_its_command_line():
    original = request(report_uri="/tmp/r.json")
    assert StageRequest.parse("train", "", original.to_argv()) == original


NO_OBJECTS = ["[1]", "5", '"a"', "null", "", "{", "[" * 100_000, '{"a":' * 100_000, "1" * 5000]
NO_HANDOFFS = ['{"a": 5}', '{"a": null}', '{"a": {}}', '{"a": {"table": "x", "uri": "y", "version": "1"}}']


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *((option, text) for option in ("--overrides", "--inputs", "--upstream") for text in NO_OBJECTS),
        *(("--inputs", text) for text in NO_HANDOFFS),
        ("--inputs", json.dumps({"a": {**vars(request().inputs["sequences"]), "more": 1}})),
        ("--upstream", '{"a": 5}'),
        ("--upstream", json.dumps({"a" * 5000: ["b" * 5000]})),
    ],
    ids=lambda value: value[:12],
)
def test_a_command_line_of_wrong_form_ends_with_one_sentence(option, text, capsys):
    with pytest.raises(SystemExit) as ended:
        StageRequest.parse("train", "", ["--dataset=shop", "--partition=2026-01-31", f"{option}={text}"])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"error: argument {option}: " in last
    assert len(last) <= 300


def test_a_partition_that_is_no_day_is_refused():
    with pytest.raises(DataError, match=r"'31\.1\.26' is not a day"):
        request(partition="31.1.26")


def test_a_report_survives_its_file(tmp_path):
    handoff = Handoff(table="items", uri="/w/items", version=2, rows=7, schema_hash="b")
    report = StageReport(
        stage="ingest", status="done", handoffs={"items": handoff}, counts={"rows": 7}, outputs={"x": "y"}
    )
    uri = str(tmp_path / "deep" / "report.json")
    assert read_report(uri) is None
    write_report(uri, report)
    assert read_report(uri) == report
    (tmp_path / "deep" / "report.json").write_text("{}")
    with pytest.raises(DataError, match="not a stage report"):
        read_report(uri)


def test_a_user_error_ends_with_status_2_and_leaves_its_message(tmp_path, capsys):
    def refuse(_):
        raise DataError("file x, line 3: no user id; add one")

    uri = str(tmp_path / "r.json")
    with pytest.raises(SystemExit) as stopped:
        run_stage("ingest", refuse, ["--dataset=d", "--partition=2026-01-31", f"--report-uri={uri}"])
    assert stopped.value.code == 2
    assert "file x, line 3: no user id; add one" in capsys.readouterr().err
    assert (tmp_path / "r.json.error").read_text() == "ingest: DataError: file x, line 3: no user id; add one"
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("bug", [KeyError("bug"), ValueError("shapes (3,) and (4,) differ")])
def test_a_bug_keeps_its_traceback(bug, tmp_path):
    def break_down(_):
        raise bug

    uri = str(tmp_path / "r.json")
    with pytest.raises(type(bug)):
        run_stage("ingest", break_down, ["--dataset=d", "--partition=2026-01-31", f"--report-uri={uri}"])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_message_after_its_traceback_and_no_refusal(tmp_path, capsys):
    def write(request):
        raise OSError(28, "No space left on device", "/w/part-0.parquet")

    uri = str(tmp_path / "report.json")
    with pytest.raises(SystemExit) as stopped:
        run_stage("ingest", write, ["--dataset=d", "--partition=2026-01-31", f"--report-uri={uri}"])
    assert stopped.value.code == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert "/w/part-0.parquet" in trace[-1]
    assert last.startswith("ingest: No space left on device. Tables are unchanged: free space")
    assert not list(tmp_path.iterdir()), "another try may find it freed"
