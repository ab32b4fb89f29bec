"""The line of runs in front of a data set: one at a time, in order, and never held by the dead."""

import json
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import pytest

DAILY, BACKFILL = ("daily_retrain", "manual__1"), ("daily_retrain", "backfill__1")
BENCHMARK, RECIPE, OTHER_RECIPE = ("preference_benchmark", "b"), ("train_recipe", "r"), ("train_recipe", "s")
ERASURE = ("erase_users", "e")
RACES, RACERS = 40, 4


@pytest.fixture
def line(tmp_path, airflow_home):
    """Stand in line as a run; ``line.running`` holds the runs that Airflow calls running."""
    from dags.turns import stand_in_line

    path = tmp_path / "turns" / "shop.json"
    running = {DAILY, BACKFILL, BENCHMARK, RECIPE, OTHER_RECIPE, ERASURE}

    def stand(run):
        return stand_in_line(path, run, running.__contains__)

    stand.path, stand.running = path, running
    stand.stored = lambda: [tuple(run) for run in json.loads(path.read_text())]
    return stand


def test_a_backfill_waits_for_the_days_run_until_it_ends_however_often_either_asks(line):
    assert [line(DAILY), line(BACKFILL), line(DAILY), line(BACKFILL)] == [None, DAILY, None, DAILY]
    line.running.remove(DAILY)
    assert [line(BACKFILL), line(BACKFILL)] == [None, None]
    assert line.stored() == [BACKFILL]


def test_a_cleared_task_of_an_ended_run_waits_at_the_end_of_the_line(line):
    line(DAILY), line(BACKFILL)
    line.running.remove(DAILY)
    assert line(BACKFILL) is None
    line.running.add(DAILY)
    assert line(DAILY) == BACKFILL
    assert line.stored() == [BACKFILL, DAILY]


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        (DAILY, BENCHMARK, True),
        (DAILY, RECIPE, False),
        (RECIPE, DAILY, False),
        (RECIPE, OTHER_RECIPE, False),
        (ERASURE, RECIPE, True),
        (RECIPE, ERASURE, True),
        (DAILY, ERASURE, True),
        (ERASURE, BENCHMARK, True),
    ],
)
def test_who_waits_for_whom(line, first, second, waits):
    assert line(first) is None
    assert line(second) == (first if waits else None)


def test_an_erasure_is_not_overtaken_for_ever_by_readers(line):
    assert [line(RECIPE), line(ERASURE), line(OTHER_RECIPE)] == [None, RECIPE, ERASURE]
    line.running.remove(RECIPE)
    assert [line(OTHER_RECIPE), line(ERASURE)] == [ERASURE, None]


def _race(path, number, barrier, answers):
    from dags.turns import stand_in_line

    for race in range(RACES):
        barrier.wait(timeout=60)
        before = stand_in_line(path / f"{race}.json", ("daily_retrain", str(number)), lambda run: True)
        answers.put((race, number, before))


def test_of_racing_processes_exactly_one_has_its_turn(tmp_path, airflow_home):
    import dags.turns  # noqa: F401  (before the fork, so that the racers start together)

    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(RACERS), fork.Queue()
    racers = [fork.Process(target=_race, args=(tmp_path, n, barrier, answers), daemon=True) for n in range(RACERS)]
    for racer in racers:
        racer.start()
    said = [answers.get(timeout=60) for _ in range(RACES * RACERS)]
    for racer in racers:
        racer.join()
    for race in range(RACES):
        winners = [number for at, number, before in said if at == race and before is None]
        assert len(winners) == 1, race
        waiting_for = {before for at, _, before in said if at == race and before is not None}
        assert waiting_for == {("daily_retrain", str(winners[0]))}
        assert len(json.loads((tmp_path / f"{race}.json").read_text())) == RACERS
    assert len({number for _, number, before in said if before is None}) > 1, "the race was none"


def test_a_process_that_is_killed_while_it_looks_locks_nobody_out(line):
    from dags.turns import stand_in_line

    line(DAILY)
    inside = line.path.with_suffix(".inside")

    def hang(run):
        inside.touch()
        time.sleep(600)

    killed = multiprocessing.get_context("fork").Process(target=stand_in_line, args=(line.path, BACKFILL, hang))
    killed.start()
    while not inside.exists():
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert line(BENCHMARK) == DAILY
    assert line.stored() == [DAILY, BENCHMARK]


def test_a_task_that_waits_gives_its_slots_back_and_says_for_whom(monkeypatch, tmp_path, airflow_home, caplog):
    from airflow.sdk.exceptions import AirflowRescheduleException

    from dags.turns import LOOK_AGAIN, wait_for_turn

    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    asked = []

    def count(**query):
        asked.append(query)
        return 1

    def context(run, dataset="shop"):
        dag_id, run_id = run
        run = SimpleNamespace(dag_id=dag_id, run_id=run_id)
        return {"params": {"dataset": dataset}, "dag_run": run, "ti": SimpleNamespace(get_dr_count=count)}

    wait_for_turn(context(DAILY))
    with caplog.at_level("INFO"), pytest.raises(AirflowRescheduleException) as waits:
        wait_for_turn(context(BACKFILL))
    assert asked == [{"dag_id": "daily_retrain", "run_ids": ["manual__1"], "states": ["running"]}]
    assert "'shop' are with run manual__1 of daily_retrain" in caplog.text
    assert 0 < (waits.value.reschedule_date.timestamp() - time.time()) <= LOOK_AGAIN.total_seconds()
    wait_for_turn(context(BACKFILL, dataset="another"))
    wait_for_turn(context(("rollback", "now")))


def test_a_line_that_is_cut_is_named_and_is_not_an_empty_line(line):
    from infra.errors import DamagedFile

    line(DAILY)
    for content in (b"", line.path.read_bytes()[:9], b"[1, 2]"):
        line.path.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"shop\.json cannot be read .*when no run of data set shop is under way"):
            line(BACKFILL)
