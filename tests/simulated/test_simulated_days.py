"""What a simulation reports, and which promises it sees broken."""

import pytest

from tests.simulated.__main__ import Outcome, broken, table


def outcome(partition="2026-03-02", kind="ordinary", **more):
    usual = {
        "seconds": 60.0, "rows": 50, "users": 300, "calls": 4, "steps": 200, "work": "continues from version 1",
        "challenger": 0.12, "champion": 0.11, "decision": "promoted", "reason": "0.12 is above", "probe": 0.2,
        "challenger_probe": 0.2,
    }  # fmt: skip
    return Outcome(partition=partition, kind=kind, **(usual | more))


UNCHANGED = {"kind": "repeated", "calls": 0, "steps": 0, "decision": "unchanged", "challenger_probe": None}


def test_days_as_expected_pass():
    refused = outcome(kind="bad", decision="kept", challenger_probe=0.05)
    assert broken([outcome(), outcome(**UNCHANGED), refused, outcome(probe=0.181)]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "bad"}, "(bad) was promoted"),
        (
            {"kind": "bad", "decision": "kept", "challenger_probe": 0.19},
            "does no harm (probe 0.1900), so it tests nothing",
        ),
        ({"probe": 0.17}, "probe fell to 0.1700 from 0.2000"),
        (UNCHANGED | {"calls": 1}, "cost 1 calls and 0 steps"),
        (UNCHANGED | {"steps": 7}, "cost 0 calls and 7 steps"),
        (UNCHANGED | {"seconds": 121.0}, "took 121 s"),
        ({"cleaned": 0}, "the clean-up after it removed no version"),
    ],
)
def test_a_failed_expectation_is_reported_with_its_number(change, said):
    (found,) = broken([outcome(), outcome(**change)])
    assert said in found


def test_the_table_has_a_row_per_run():
    rows = table([outcome(), outcome(**UNCHANGED), outcome(cleaned=3)]).splitlines()
    assert len(rows) == 5
    assert len({row.count("|") for row in rows}) == 1
    assert "0.1200 / 0.1100" in rows[2]
    assert "0.2000 / -" in rows[3]
    assert "| ordinary; cleaned up after: 3 versions |" in rows[4]
