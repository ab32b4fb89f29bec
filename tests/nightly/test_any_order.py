"""Days in any order end in the same tables, refused rows and all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from infra.settings import Settings
from pipelines import ingest, sequences
from pipelines.delta_tables import read_table
from pipelines.later_days import with_later_days
from pipelines.tools.register import register
from schemas.handoff import StageReport
from schemas.stage_request import StageRequest
from schemas.table_seal import newest_version

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
NEW_ITEMS = {"2026-01-01": "abc", "2026-01-02": "de", "2026-01-03": "f"}
REVIEWED = {"2026-01-01": "abc", "2026-01-02": "abcde", "2026-01-03": "bdf"}
NAMES = ("reviews", "items", "interactions", "sequences", "quarantine")


def deliver(folder: Path, day: str) -> None:
    """Files of a day; the second day corrects a rating of the first, the third reviews items of all days."""
    (folder / day).mkdir(parents=True)
    written = [
        {
            "reviewerID": f"U{user}",
            "asin": item,
            "overall": 4.0,
            "reviewText": f"{item} is fine, says {user}",
            "summary": "",
            "unixReviewTime": 1454889600 + 86_400 * (10 * DAYS.index(day) + user),
        }
        for user in range(3)
        for item in REVIEWED[day]
        if (user + ord(item)) % 3
    ]
    if day == DAYS[1]:
        first = {**written[0], "asin": "a", "reviewerID": "U0", "unixReviewTime": 1454889600}
        written.append({**first, "overall": 1.0, "reviewText": "a is fine, says 0"})
    items = [{"asin": item, "title": f"Thing {item}", "categories": [["Things"]]} for item in NEW_ITEMS[day]]
    for name, lines in (("reviews", written), ("items", items)):
        (folder / day / f"{name}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run_day(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs both stages of a day of a data set, as they are launched."""
    for module in ("ingest", "sequences", "later_days"):
        monkeypatch.setattr(f"pipelines.{module}.load_settings", lambda: settings)
    for day in DAYS:
        deliver(tmp_path, day)
    overrides = {"sequences.user_core": 1, "sequences.item_core": 1}

    def run(dataset: str, day: str) -> dict[str, StageReport]:
        files = (str(tmp_path / "{partition}" / f"{name}.json") for name in ("reviews", "items"))
        register(dataset, *files, datasets_dir=settings.datasets_dir(), format="amazon-2014")
        reports: dict[str, StageReport] = {}
        for stage in (ingest, sequences):
            given = reports["ingest"].handoffs if reports else {}
            request = StageRequest(
                stage=stage.STAGE, dataset=dataset, partition=day, overrides=overrides,
                inputs={name: given[name] for name in ("reviews", "items") if name in given},
            )  # fmt: skip
            reports[stage.STAGE] = with_later_days(stage.STAGE, stage.run)(request)
        return reports

    return run


def contents(spark: SparkSession, settings: Settings, dataset: str) -> dict[str, list[str]]:
    return {name: sorted(map(str, read_table(spark, settings.table_uri(dataset, name)).collect())) for name in NAMES}


@pytest.mark.parametrize("order", [(2, 0, 1)])
def test_any_order_of_days_ends_in_the_same_tables(spark, settings, run_day, order: Sequence[int]):
    for day in DAYS:
        run_day("ordered", day)
    reports = [run_day("mixed", DAYS[number]) for number in order]
    expected = contents(spark, settings, "ordered")
    assert {name: len(rows) for name, rows in expected.items()} == {
        "reviews": 23, "items": 6, "interactions": 44, "sequences": 9, "quarantine": 0,
    }  # fmt: skip
    assert contents(spark, settings, "mixed") == expected
    first, second, _ = reports
    assert first["ingest"].counts["reviews.quarantined.unknown_item"] > 0
    assert "later_days" not in first["sequences"].counts
    assert second["ingest"].counts["later_days"] == second["sequences"].counts["later_days"] == 1
    last = reports[-1]["sequences"].handoffs["sequences"]
    assert last.version == newest_version(last.uri)

    run_day("mixed", DAYS[0])
    assert newest_version(last.uri) == last.version, "a rerun of an older day finds nothing to do"
