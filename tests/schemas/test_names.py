"""One form of every name, wherever it comes in."""

import re

import pytest

from schemas.dataset import Dataset
from schemas.errors import DataError
from schemas.names import DATASET_PATTERN, DAY_PATTERN, dataset_name, partition_day, plain_name
from schemas.stage_request import StageRequest
from schemas.stage_runner import run_stage

NO_DATASETS = ("", "shop\n", "\nshop", "sh op", "../../a", "a/b", "Shop", "-a", "x" * 65, "é", "shop\u2028", "a\x00")
NO_DAYS = (
    "20260131",
    "2026-W05-6",
    "2026-02-30",
    "2026-1-31",
    "2026-01-31\n",
    " 2026-01-31",
    "\u0662026-01-31",
    "",
    "2026-01-31T00",
)


@pytest.mark.parametrize("name", NO_DATASETS)
def test_what_names_no_data_set_is_refused_everywhere(name, tmp_path, capsys):
    assert not re.search(DATASET_PATTERN, name)
    refused = r"^data set name .*: use up to 64 lower case letters"
    for use in (
        lambda: dataset_name(name),
        lambda: StageRequest(stage="ingest", dataset=name, partition="2026-01-31"),
        lambda: Dataset(name=name, format="columns", reviews="r.csv"),
        lambda: Dataset.load(str(tmp_path), name),
    ):
        with pytest.raises(DataError, match=refused) as error:
            use()
        assert len(str(error.value)) < 300
    with pytest.raises(SystemExit):
        run_stage("ingest", lambda _: pytest.fail("it ran"), [f"--dataset={name}", "--partition=2026-01-31"])
    assert "use up to 64 lower case letters" in capsys.readouterr().err


@pytest.mark.parametrize("day", NO_DAYS)
def test_a_day_has_one_form(day):
    assert not re.search(DAY_PATTERN, day) or day == "2026-02-30"
    with pytest.raises(DataError, match="is not a day such as 2026-01-31"):
        partition_day(day)
    with pytest.raises(DataError, match="is not a day such as 2026-01-31"):
        StageRequest(stage="ingest", dataset="shop", partition=day)


def test_names_that_are_used_pass():
    for name in ("a", "planted-world", "0_9", "x" * 64):
        assert re.search(DATASET_PATTERN, name)
        assert dataset_name(name) == name
    assert partition_day("2024-02-29") == "2024-02-29"
    assert plain_name("review_preference", "prompt") == "review_preference"
    for name in ("../x", "/etc/passwd", "a/b", "..", "", "a\n", "x" * 65):
        with pytest.raises(DataError, match=r"^prompt "):
            plain_name(name, "prompt")


@pytest.mark.parametrize("given", [{"recipe": "../a"}, {"generation": -1}, {"generation": True}])
def test_other_names_of_a_request_are_plain(given):
    with pytest.raises(DataError):
        StageRequest(stage="train", dataset="shop", partition="2026-01-31", **given)
