import datetime as dt

import pyarrow as pa
import pytest

from ray_jobs.days import printed
from ray_jobs.registry.aliases import point_alias
from ray_jobs.registry.runs import connect
from ray_jobs.registry.users import user_parts
from ray_jobs.tools import report
from schemas.errors import DataError
from schemas.model_versions import CHAMPION

DAY = "2026-01-31"


@pytest.fixture
def scored(registered):
    world, _, _ = registered
    request = world.request("recommendations", {})
    rows = [
        {
            "user_id": reader.user_id,
            "item_ids": [f"i{n:02}" for n in range(20, 27)],
            "scores": [-1.5 - n for n in range(7)],
            "preference": reader.preference,
        }
        for reader in next(user_parts(world.settings, request, 100))
    ]
    day = dt.date.fromisoformat(DAY)
    world = world.publish("recommendations", rows, {"partition_date": day, "model_version": "penchant-tiny/1"})
    refused = [
        {"row_key": f"reviews:{n}", "reason": reason, "detail": "", "raw": ""}
        for n, reason in enumerate(["bad date", "bad date", "missing item id"])
    ]
    return world.publish("quarantine", refused, {"partition_date": day, "stage": "ingest"})


def test_the_whole_text(scored, capsys):
    report.main(["--dataset=tiny", f"--partition={DAY}", "--users=2"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= printed.WIDTH
    lines = text.splitlines()
    assert lines[1] == "Penchant: tiny, 2026-01-31"
    assert [line for line in lines if line.startswith("User ")] == ["User u00", "User u03"]
    first = text[text.index("User u00") : text.index("User u03")]
    assert "Reviewed (last 5 of 5, oldest first)" in first
    assert "    *      Title of i00\n    **     Title of i03\n" in first
    assert "    + I like jazz.\n    - I dislike loud amplifiers.\n" in first
    assert "cheap" not in first
    tops = [line for line in first.splitlines() if line.startswith(("    1. ", "    5. ", "    6. "))]
    assert [line.split() for line in tops] == [
        ["1.", "Title", "of", "i20", "-1.500"],
        ["5.", "Title", "of", "i24", "-5.500"],
    ]
    metrics = text[text.index("Metrics (test") : text.index("Registered model")].splitlines()
    assert [line.split()[0] for line in metrics[3:5]] == ["sasrec", "popularity"]
    assert metrics[2].split() == ["Recall@5", "Recall@10", "NDCG@5", "NDCG@10"]
    assert " 0.551 (" in metrics[3]
    assert "24 users" in metrics[5]
    assert "penchant-tiny version 1 (champion, challenger)" in text
    assert "promoted: NDCG@10 0.5508 is above popularity's" in text
    assert "code unknown" not in text
    assert "30 items, 24 users with a sequence, 24 of them with recommendations" in text
    assert "quarantined 3: ingest: bad date 2, ingest: missing item id 1" in text


def test_a_recommender_that_lost_to_its_baseline_stands_beside_it(scored):
    client = connect(scored.settings)
    lost = scored.evaluate({"hstu@lost": lambda n: 2 + n})
    client.set_model_version_tag("penchant-tiny", "1", "penchant.instead_of", "lost")
    text = printed.report(lost.settings, "tiny", DAY)
    metrics = text[text.index("Metrics (test") : text.index("Registered model")].splitlines()
    assert [line.split()[0] for line in metrics[3:6]] == ["sasrec", "hstu", "popularity"]
    assert "NDCG@10 minus hstu's, user by user: +0." in text


def test_users_without_preferences_follow_by_id():
    listed = pa.table({"user_id": ["d", "c", "b", "a"]})
    places, said = [0, 2, 1, 4], [["one"], ["one", "two"], ["one"], ["one"] * 3]
    told = pa.table({"user_id": [*"cbbx"], "position": places, "status": ["ok"] * 4, "preferences": said})
    known = printed.newest_preferences(told)
    assert known["position"].to_pylist() == [2, 0, 4]
    assert printed.chosen_users(listed, known, 3) == ["b", "c", "a"]
    assert printed.chosen_users(listed, None, 2) == ["a", "b"]
    assert printed.newest_preferences(told.slice(0, 0)).num_rows == 0


def test_long_titles_stay_on_their_line():
    assert printed.shortened("a  b\nc", 10) == "a b c"
    assert printed.shortened("x" * 30, 10) == "xxxxxxx..."


def test_what_is_missing_is_named(registered, capsys):
    world, _, _ = registered
    with pytest.raises(DataError, match="recommendations"):
        printed.report(world.settings, "tiny", DAY)
    with pytest.raises(SystemExit, match="2"):
        report.main(["--dataset=tiny", "--partition=2026-02-01"])
    assert "no version of penchant-tiny is registered for 2026-02-01" in capsys.readouterr().err


def test_another_champion_is_not_claimed(scored):
    client = connect(scored.settings)
    source = client.get_model_version("penchant-tiny", "1")
    client.create_model_version("penchant-tiny", source.source)
    point_alias(client, "penchant-tiny", CHAMPION, "2")
    assert "penchant-tiny version 1 (challenger)" in printed.report(scored.settings, "tiny", DAY)
