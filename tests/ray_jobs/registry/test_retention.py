import datetime as dt
from types import SimpleNamespace

import pytest

from infra.errors import SettingError
from ray_jobs.retention.versions import CleanUpSettings, _keep_starts, _kept

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
JUDGED = {"penchant.run_identity": "x", "penchant.decision": "kept"}


def version(number, days=100, **tags):
    made = (NOW - dt.timedelta(days=days)).timestamp() * 1000
    named = {f"penchant.{name}": value for name, value in tags.items()}
    return SimpleNamespace(name="m", version=str(number), creation_timestamp=made, tags={**JUDGED, **named})


def test_each_reason_keeps_its_version_and_nothing_else():
    found = [
        version(1),
        version(2, keep="true"),
        version(3),
        version(4, champion_before="3"),
        version(5, decision="promoted", partition="2026-02-01"),
        version(6, decision="promoted", partition="2026-02-05", rolled_back="to 4"),
        version(7, decision="waiting"),
        version(8, days=3),
        version(9),
        version(10),
    ]
    del found[0].tags["penchant.run_identity"]
    own = CleanUpSettings(keep_versions=1, keep_days=5)
    kept = _kept(found, {"champion": "4", "shadow": "6"}, own, NOW)
    assert {number: one.reasons for number, one in kept.items()} == {
        "1": ["not made by the register stage"],
        "2": ["tag penchant.keep"],
        "3": ["champion before 4, for a roll-back"],
        "4": ["alias champion"],
        "5": ["promoted last: the next day continues from it"],
        "6": ["alias shadow"],
        "7": ["not judged yet"],
        "8": ["younger than 5 days"],
        "10": ["among the newest 1"],
    }
    assert all(one.whole for one in kept.values())


def test_what_a_kept_version_began_with_keeps_its_files_one_link_far():
    found = [version(1), version(2, warm_start="m/1"), version(3, warm_start="m/2"), version(4, warm_start="m/9")]
    kept = _kept(found, {}, CleanUpSettings(keep_versions=2, keep_days=0), NOW)
    other = SimpleNamespace(name="front", version="1", tags={"penchant.warm_start": "m/1"})
    _keep_starts(kept, found, found)
    assert {number: (one.whole, one.reasons[0]) for number, one in kept.items()} == {
        "3": (True, "among the newest 2"),
        "4": (True, "among the newest 2"),
        "2": (False, "m/3 started from it"),
    }
    kept = _kept(found, {}, CleanUpSettings(keep_versions=2, keep_days=0), NOW)
    _keep_starts(kept, found, [*found, other])
    assert kept["1"].reasons == ["front/1 started from it"]


@pytest.mark.parametrize("given", [{"history_days": 6}, {"keep_versions": 0}, {"work_days": 0}, {"keep_days": -1}])
def test_settings_that_would_take_too_much_are_refused(given):
    with pytest.raises(SettingError, match=rf"clean_up\.{next(iter(given))} is"):
        CleanUpSettings(**given)
