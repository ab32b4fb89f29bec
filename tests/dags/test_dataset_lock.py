"""The lock of a data set: runs get it in order of arrival, and a run that ended never holds it."""

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
def queue(tmp_path, airflow_home):
    """Request the lock as a run; ``queue.running`` has the runs that Airflow lists as running."""
    from dags.dataset_lock import acquire

    path = tmp_path / "turns" / "shop.json"
    running = {DAILY, BACKFILL, BENCHMARK, RECIPE, OTHER_RECIPE, ERASURE}

    def request(run):
        return acquire(str(path), run, running.__contains__)

    request.path, request.running = path, running
    request.stored = lambda: [tuple(run) for run in json.loads(path.read_text())]
    return request


def test_a_backfill_waits_for_the_days_run_until_it_ends_however_often_either_asks(queue):
    assert [queue(DAILY), queue(BACKFILL), queue(DAILY), queue(BACKFILL)] == [None, DAILY, None, DAILY]
    queue.running.remove(DAILY)
    assert [queue(BACKFILL), queue(BACKFILL)] == [None, None]
    assert queue.stored() == [BACKFILL]


def test_a_cleared_task_of_an_ended_run_waits_at_the_end_of_the_queue(queue):
    queue(DAILY), queue(BACKFILL)
    queue.running.remove(DAILY)
    assert queue(BACKFILL) is None
    queue.running.add(DAILY)
    assert queue(DAILY) == BACKFILL
    assert queue.stored() == [BACKFILL, DAILY]


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
def test_who_waits_for_whom(queue, first, second, waits):
    assert queue(first) is None
    assert queue(second) == (first if waits else None)


def test_an_erasure_is_not_overtaken_for_ever_by_readers(queue):
    assert [queue(RECIPE), queue(ERASURE), queue(OTHER_RECIPE)] == [None, RECIPE, ERASURE]
    queue.running.remove(RECIPE)
    assert [queue(OTHER_RECIPE), queue(ERASURE)] == [ERASURE, None]


def _race(path, number, barrier, answers):
    from dags.dataset_lock import acquire

    for race in range(RACES):
        barrier.wait(timeout=60)
        before = acquire(str(path / f"{race}.json"), ("daily_retrain", str(number)), lambda run: True)
        answers.put((race, number, before))


def test_of_racing_processes_exactly_one_gets_the_lock(tmp_path, airflow_home):
    import dags.dataset_lock  # noqa: F401  (before the fork, so that the racers start together)

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


def test_a_process_that_is_killed_while_it_looks_leaves_nothing_locked(queue):
    from dags.dataset_lock import acquire

    queue(DAILY)
    inside = queue.path.with_suffix(".inside")

    def hang(run):
        inside.touch()
        time.sleep(600)

    killed = multiprocessing.get_context("fork").Process(target=acquire, args=(str(queue.path), BACKFILL, hang))
    killed.start()
    while not inside.exists():
        assert killed.is_alive()
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert queue(BENCHMARK) == DAILY
    assert queue.stored() == [DAILY, BENCHMARK]


def test_a_task_that_waits_gives_its_slots_back_and_says_for_whom(monkeypatch, tmp_path, airflow_home, caplog):
    from airflow.sdk.exceptions import AirflowRescheduleException

    from dags.dataset_lock import RETRY_AFTER, wait_for_lock

    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    asked = []

    def count(**query):
        asked.append(query)
        return 1

    def context(run, dataset="shop"):
        dag_id, run_id = run
        run = SimpleNamespace(dag_id=dag_id, run_id=run_id)
        return {"params": {"dataset": dataset}, "dag_run": run, "ti": SimpleNamespace(get_dr_count=count)}

    wait_for_lock(context(DAILY))
    with caplog.at_level("INFO"), pytest.raises(AirflowRescheduleException) as waits:
        wait_for_lock(context(BACKFILL))
    assert asked == [{"dag_id": "daily_retrain", "run_ids": ["manual__1"], "states": ["running"]}]
    assert "run manual__1 of daily_retrain has locked data set 'shop'" in caplog.text
    assert 0 < (waits.value.reschedule_date.timestamp() - time.time()) <= RETRY_AFTER.total_seconds()
    wait_for_lock(context(BACKFILL, dataset="another"))
    wait_for_lock(context(("rollback", "now")))


def test_a_damaged_queue_is_named_and_not_read_as_empty(queue):
    from infra.errors import DamagedFile

    queue(DAILY)
    for content in (b"", queue.path.read_bytes()[:9], b"[1, 2]"):
        queue.path.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"shop\.json cannot be read .*when no run of data set shop is under way"):
            queue(BACKFILL)
