import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from batch_server import batch_server
from pyspark.sql import functions as sf
from scripted_server import Reply, chat_reply, error_reply, scripted_server

from infra.progress import read_progress
from infra.settings import LLMSettings
from pipelines.delta_tables import read_table
from pipelines.language import ledger as ledger_module
from pipelines.language.errors import BudgetExhausted, EndpointError, QuotaExhausted, TooManyBadAnswers
from pipelines.language.journal import journal_address
from pipelines.language.ledger import Ledger
from pipelines.language.requests import ChatRequest, to_json
from schemas.llm_responses import LLM_RESPONSES
from schemas.stage_request import StageRequest


@pytest.fixture
def make(spark, settings):
    def build(server, mode="online", **overrides):
        values = {"chunk": 4, **overrides}
        request = StageRequest(
            stage="preferences",
            dataset="d",
            partition="2026-01-02",
            overrides={f"llm.{name}": value for name, value in values.items()},
        )
        llm = LLMSettings(
            base_url=server.base_url,
            concurrency=2,
            max_attempts=1,
            timeout_s=5,
            price_in=1.0,
            price_out=10.0,
            mode=mode,
            batch_poll_s=0.01,
        )
        return Ledger(spark, settings.model_copy(update={"llm": llm}), request, "preferences")

    return build


def frame(spark, ledger, texts):
    def line(text):
        message = {"role": "user", "content": text}
        request = ChatRequest(prompt_name="p", prompt_version="1", messages=(message,), max_tokens=9)
        return to_json(request, ledger._llm)

    rows = [(i, None if text is None else line(text)) for i, text in enumerate(texts)]
    return spark.createDataFrame(rows, "row int, request string")


def upper(path, body, n):
    return chat_reply(body["messages"][0]["content"].upper())


def texts(result):
    return [row.text for row in result.orderBy("row").select(sf.col("answer.text").alias("text")).collect()]


def test_same_request_is_asked_once_and_a_second_run_asks_nothing(spark, settings, make):
    wanted = ["a", "b", None, "a", "c", "d", "e"]
    with scripted_server(upper) as server:
        first = make(server)
        assert texts(first.process(frame(spark, first, wanted), ["row"])) == ["A", "B", None, "A", "C", "D", "E"]
        assert len(server.calls) == 5
        counts = first.counts()
        assert (counts["llm_requests"], counts["llm_cache_hits"], counts["llm_calls"]) == (5, 0, 5)
        assert (counts["llm_prompt_tokens"], counts["llm_completion_tokens"]) == (55, 15)
        assert read_progress(settings.home, "preferences", 0)[:2] == (5, 5)

        second = make(server)
        assert texts(second.process(frame(spark, second, wanted), ["row"])) == ["A", "B", None, "A", "C", "D", "E"]
        assert len(server.calls) == 5
        assert (second.usage.cache_hits, second.usage.calls) == (5, 0)

        third = make(server)
        assert texts(third.process(frame(spark, third, ["a", "new"]), ["row"])) == ["A", "NEW"]
        assert len(server.calls) == 6
    rows = read_table(spark, settings.table_uri("d", "llm_responses"))
    assert rows.count() == rows.select("request_key").distinct().count() == 6
    row = rows.where("text = 'A'").first()
    assert (row.kind, row.prompt_name, row.status, row.endpoint) == ("chat", "p", "ok", "loopback/v1")


def test_answers_outlive_a_job_that_dies_before_it_commits_them(spark, settings, make, monkeypatch):
    wanted = [f"t{i}" for i in range(8)]

    def dies(*args):
        raise RuntimeError("killed")

    with scripted_server(upper) as server:
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, "append_rows", dies)
            killed = make(server, chunk=3)
            with pytest.raises(RuntimeError, match="killed"):
                killed.process(frame(spark, killed, wanted), ["row"])
        assert len(server.calls) == 3
        again = make(server, chunk=5)
        assert texts(again.process(frame(spark, again, wanted), ["row"])) == [f"T{i}" for i in range(8)]
        assert again.usage.cache_hits == 3
        assert len(server.calls) == 8
    rows = read_table(spark, settings.table_uri("d", "llm_responses"))
    assert rows.count() == rows.select("request_key").distinct().count() == 8
    again.finish()
    assert not list(Path(journal_address(settings, "d")).iterdir())


def test_sigkill_at_half_time_costs_one_pass_in_all(spark, settings, make):
    """The whole process group dies, JVM and workers, as a killed container does."""
    wanted = [f"t{i}" for i in range(300)]
    half = threading.Event()

    def script(path, body, n):
        if n == 150:
            half.set()
        return Reply(upper(path, body, n).body, delay=0.01)

    job = """
import sys
from infra.settings import LLMSettings, load_settings
from pipelines.language.journal import journal_address
from pipelines.language.ledger import Ledger
from pipelines.language.requests import ChatRequest, to_json
from pipelines.spark import spark_session
from schemas.stage_request import StageRequest

settings = load_settings()
spark = spark_session("killed", settings)
request = StageRequest(stage="preferences", dataset="d", partition="2026-01-02")
ledger = Ledger(spark, settings, request, "preferences")
rows = []
for i in range(300):
    message = {"role": "user", "content": f"t{i}"}
    asked = ChatRequest(prompt_name="p", prompt_version="1", messages=(message,), max_tokens=9)
    rows.append((i, to_json(asked, settings.llm)))
ledger.process(spark.createDataFrame(rows, "row int, request string"), ["row"])
"""
    with scripted_server(script) as server:
        environment = {
            **os.environ,
            "PENCHANT_HOME": settings.home,
            "PENCHANT_SPARK__JARS_DIR": str(settings.spark.jars_dir),
            "PENCHANT_LLM__BASE_URL": server.base_url,
            "PENCHANT_LLM__CONCURRENCY": "4",
        }
        environment.pop("PYSPARK_GATEWAY_PORT", None)
        killed = subprocess.Popen([sys.executable, "-c", job], env=environment, start_new_session=True)
        assert half.wait(120)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        seen = -1
        while seen != len(server.calls):  # Spark's Python workers notice a moment later that their job is gone
            seen = len(server.calls)
            time.sleep(1)
        assert 150 <= len(server.calls) < 300
        again = make(server)
        assert texts(again.process(frame(spark, again, wanted), ["row"])) == [f"T{i}" for i in range(300)]
        asked = Counter(body["messages"][0]["content"] for _, body in server.calls)
    assert set(asked) == set(wanted)
    assert len(server.calls) <= 1.05 * 300
    assert again.usage.cache_hits >= 140
    rows = read_table(spark, settings.table_uri("d", "llm_responses"))
    assert rows.count() == rows.select("request_key").distinct().count() == 300


def test_a_useless_answer_is_asked_for_again_within_limits(spark, settings, make):
    seen = []

    def script(path, body, n):
        text = body["messages"][0]["content"]
        seen.append((text, body["max_tokens"], body["temperature"], body["seed"]))
        first = [t for t, *_ in seen].count(text) == 1
        if text == "long" and body["max_tokens"] < 18:
            return chat_reply("x", "length")
        if text == "never" or (text == "once" and first):
            return chat_reply(None, refusal="no")
        return upper(path, body, n)

    with scripted_server(script) as server:
        ledger = make(server, chunk=8)
        result = ledger.process(frame(spark, ledger, ["fine", "long", "never", "once"]), ["row"])
        assert [r.status for r in result.orderBy("row").select("answer.status").collect()] == [
            "ok",
            "ok",
            "refused",
            "ok",
        ]
        assert sorted(t for t, *_ in seen) == ["fine", "long", "long", "never", "never", "once", "once"]
        assert [rest for t, *rest in seen if t == "long"] == [[9, 0.0, 0], [18, 0.4, 1]]
        counts = ledger.counts()
        assert (counts["llm_calls"], counts["llm_prompt_tokens"], counts["llm_refused"]) == (7, 77, 1)
        again = make(server)
        again.process(frame(spark, again, ["fine", "long", "never", "once"]), ["row"])
    assert len(server.calls) == 7
    assert read_table(spark, settings.table_uri("d", "llm_responses")).count() == 4


def test_a_dry_run_sends_nothing_and_says_what_it_would_cost(spark, settings, make):
    with scripted_server(upper) as server:
        first = make(server)
        first.process(frame(spark, first, ["a", "b"]), ["row"])
        dry = make(server, dry_run=True)
        result = dry.process(frame(spark, dry, ["a", "c", "d", None]), ["row"])
        assert texts(result) == ["A", None, None, None]
        assert len(server.calls) == 2
        report = dry.dry_report()
    assert report.status == "dry_run"
    counts = report.counts
    assert (counts["llm_requests"], counts["llm_cache_hits"], counts["llm_calls"]) == (3, 1, 0)
    # "c" and "d" are as long as "a" and "b", which took 11 tokens in and 3 out each, at 1 and 10 per million.
    assert (counts["llm_unsent_requests"], counts["llm_unsent_prompt_tokens"]) == (2, 22)
    assert counts["llm_unsent_completion_tokens"] == 6
    assert counts["llm_unsent_cost"] == pytest.approx(82e-6)


def test_a_budget_stops_a_run_cleanly_and_the_next_one_goes_on(spark, settings, make):
    wanted = [f"t{i}" for i in range(8)]
    with scripted_server(upper) as server:
        first = make(server)
        first.process(frame(spark, first, ["t0"]), ["row"])  # measured: 14 tokens a request
        for calls in (5, 8):
            run = make(server, chunk=2, budget_tokens=60)
            if calls < 8:
                with pytest.raises(
                    BudgetExhausted, match=r"budget_tokens is 60; this run has spent 56.*\(4 of 7 requests"
                ):
                    run.process(frame(spark, run, wanted), ["row"])
            else:
                assert texts(run.process(frame(spark, run, wanted), ["row"])) == [f"T{i}" for i in range(8)]
            assert len(server.calls) == calls
        poor = make(server, budget_cost=1e-9)
        asked = frame(spark, poor, ["new"])
        with pytest.raises(BudgetExhausted, match="budget_cost"):
            poor.process(asked, ["row"])
    assert len(server.calls) == 8


def test_bad_answers_are_kept_and_not_asked_again_while_failures_are(spark, make):
    kinds = {"refused": chat_reply(None, refusal="no"), "cut": chat_reply("x", "length"), "down": error_reply(500)}
    seen = []

    def script(path, body, n):
        text = body["messages"][0]["content"]
        seen.append(text)
        if text == "recovers" and seen.count(text) == 1:
            return error_reply(503)
        return kinds.get(text) or upper(path, body, n)

    wanted = ["fine", "refused", "cut", "down", "recovers"]
    expected = ["ok", "refused", "truncated", "failed"]
    with scripted_server(script) as server:
        for calls, last in ((5, "failed"), (7, "ok"), (7, "ok")):  # "down" is asked in two runs, then given up
            ledger = make(server, max_failures=2, chunk=8, bad_attempts=1)
            result = ledger.process(frame(spark, ledger, wanted), ["row"])
            rows = result.orderBy("row").select("answer.status", "answer.error").collect()
            assert [row.status for row in rows] == [*expected, last]
            assert "HTTP 500" in rows[3].error
            assert len(server.calls) == calls
    assert ledger.usage.bad == {"refused": 1, "truncated": 1, "failed": 1}


def test_too_many_bad_answers_fail_the_stage_and_stay_readable(spark, settings, make):
    with scripted_server(lambda path, body, n: chat_reply("", "length")) as server:
        ledger = make(server, bad_tolerated=2, max_bad_share=0.5)
        with pytest.raises(TooManyBadAnswers, match=r"6 of 6 answers.*6 truncated.*max_bad_share allows 50%"):
            ledger.process(frame(spark, ledger, list("abcdef")), ["row"])
    assert read_table(spark, settings.table_uri("d", "llm_responses")).count() == 6


def test_exhausted_quota_fails_at_once_and_keeps_what_was_answered(spark, settings, make):
    def script(path, body, n):
        return error_reply(429, "insufficient_quota") if n > 6 else upper(path, body, n)

    with scripted_server(script) as server:
        ledger = make(server)
        with pytest.raises(QuotaExhausted, match="6 of 12 requests answered and kept"):
            ledger.process(frame(spark, ledger, [f"t{i}" for i in range(12)]), ["row"])
    assert len(server.calls) <= 8
    assert read_table(spark, settings.table_uri("d", "llm_responses")).where("status = 'ok'").count() == 6


def test_a_wrong_key_is_one_clear_error(spark, make):
    with scripted_server(lambda path, body, n: error_reply(401)) as server:
        ledger = make(server)
        with pytest.raises(EndpointError, match=r"llm\.api_key"):
            ledger.process(frame(spark, ledger, ["a", "b"]), ["row"])
    assert len(server.calls) == 1


def test_batches_answer_what_scores_do_not_need_and_a_rerun_asks_nothing(spark, settings, make):
    wanted = [f"t{i}" for i in range(10)]
    with batch_server() as server:
        for _ in range(2):
            ledger = make(server, mode="batch")
            assert texts(ledger.process(frame(spark, ledger, wanted), ["row"])) == [f"T{i}" for i in range(10)]
        assert len(server.batches) == 1
        assert set(server.paid.values()) == {1}
    assert ledger.usage.cache_hits == 10
    rows = read_table(spark, settings.table_uri("d", "llm_responses"))
    assert rows.count() == rows.select("request_key").distinct().count() == 10


def test_several_tasks_share_the_concurrency(spark, make):
    def slow(path, body, n):
        return Reply(upper(path, body, n).body, delay=0.1)

    with scripted_server(slow) as server:
        ledger = make(server, tasks=2, chunk=8)
        assert texts(ledger.process(frame(spark, ledger, list("abcdefgh")), ["row"])) == list("ABCDEFGH")
    assert len(server.calls) == 8
    assert server.most_in_flight <= 2


def test_which_requests_are_open(spark, settings, make):
    """Rows of the table by request: status, run, answers had before; a request is open in the generations told."""
    today, before = "2026-01-02/g0/preferences", "2026-01-01/g0/preferences/x"
    had = {
        "useless in an earlier run": ([("malformed", before, 0)], {0, 1}),
        "useless in an older release": ([("refused", None, None)], {0, 1}),
        "useless too often": ([("truncated", before, n) for n in range(3)], {1}),
        "useless in this very run": ([("malformed", f"{today}/this", 0)], {1}),
        "useless in an ended run of today": ([("malformed", f"{today}/other", 0)], {0, 1}),
        "useless for another stage today": ([("malformed", "2026-01-02/g0/review_summaries/x", 0)], {1}),
        "useless in this generation": ([("malformed", "2026-01-02/g1/preferences/x", n) for n in range(3)], set()),
        "useless, then of use": ([("malformed", before, 0), ("ok", before, 1)], set()),
        "of use": ([("ok", before, 0)], set()),
        "not answered": ([("failed", before, 0)], {0, 1}),
        "never answered": ([("failed", before, 0)] * 3, {1}),
    }
    keys = {hashlib.sha256(name.encode()).hexdigest(): name for name in had}
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    rows = [
        {f.name: None for f in LLM_RESPONSES.arrow_schema()}
        | dict.fromkeys(("kind", "prompt_name", "prompt_version", "model", "endpoint", "request"), "x")
        | {"prompt_tokens": 1, "completion_tokens": 1, "latency_ms": 1.0, "partition_date": at.date()}
        | {"answered_at": at + datetime.timedelta(hours=n), "request_key": key, "status": status, "text": str(n)}
        | {"run": run, "asked_again": again}
        for key, name in keys.items()
        for n, (status, run, again) in enumerate(had[name][0])
    ]
    frame = spark.createDataFrame(pa.Table.from_pylist(rows, schema=LLM_RESPONSES.arrow_schema()))
    frame.coalesce(1).write.format("delta").save(settings.table_uri("d", "llm_responses"))
    Path(journal_address(settings, "d")).mkdir(parents=True)
    for generation in (0, 1):
        request = StageRequest(stage="preferences", dataset="d", partition="2026-01-02", generation=generation)
        ledger = Ledger(spark, settings, request, "preferences")
        if not generation:
            ledger._run = f"{today}/this"
        asked = spark.createDataFrame([(key,) for key in keys], "request_key string")
        found = {keys[row.request_key]: row for row in ledger._join_answers(asked).collect()}
        assert {name: not row.settled for name, row in found.items()} == {
            name: generation in opened for name, (_, opened) in had.items()
        }
    assert (found["useless, then of use"].answer.text, found["useless, then of use"].asked_again) == ("1", 2)
    # What the stage itself has no use for is asked for once more by a raised generation, which is told so.
    assert found["of use"].renewed
    assert not found["useless in this generation"].renewed


@pytest.mark.nightly
def test_useless_answers_are_asked_again_by_later_runs_and_always_by_a_raised_generation(spark, settings, make):
    """Within a run, however often it is killed, nothing is asked again; `broken` says what the endpoint does."""
    broken, wanted = {"a", "b"}, ["a", "b", "c"]

    def script(path, body, n):
        text = body["messages"][0]["content"]
        return chat_reply(None, "content_filter") if text in broken else upper(path, body, n)

    def asked(partition="2026-01-02", generation=0, useless=None, end=True):
        before = len(server.calls)
        llm = make(server).llm
        request = StageRequest(
            stage="preferences",
            dataset="d",
            partition=partition,
            generation=generation,
            overrides={"llm.bad_attempts": 1, "llm.retries_of_useless": 1},
        )
        ledger = Ledger(spark, settings.model_copy(update={"llm": llm}), request, "preferences")
        found = texts(ledger.process(frame(spark, ledger, wanted), ["row"], useless=useless))
        if end:
            ledger.finish()
        assert ledger.usage.asked_again == (len(server.calls) - before if before else 0)
        return sorted(body["messages"][0]["content"] for _, body in server.calls[before:]), found

    with scripted_server(script) as server:
        assert asked(end=False) == (["a", "b", "c"], [None, None, "C"])
        assert asked()[0] == []  # killed before its end and started again: the same run
        broken -= {"a"}
        assert asked() == (["a", "b"], ["A", None, "C"])
        assert asked("2026-01-03")[0] == []  # "b" has been asked again so often as is allowed
        assert asked(generation=1, end=False)[0] == ["b"]
        assert asked(generation=1)[0] == []
        broken -= {"b"}
        stage_has_no_use = sf.col("answer.text") == "C"
        assert asked(generation=2, useless=stage_has_no_use) == (["b", "c"], ["A", "B", "C"])
        assert asked(generation=2, useless=stage_has_no_use)[0] == []
    rows = read_table(spark, settings.table_uri("d", "llm_responses"))
    assert rows.groupBy("request_key").count().agg(sf.max("count")).first()[0] == 4


def test_a_poisoned_journal_is_taken_over_and_an_older_table_gets_the_new_columns(spark, settings, make):
    """What releases before this one wrote down as it came ended every later run."""
    with scripted_server(upper) as server:
        first = make(server)
        first.process(frame(spark, first, ["a"]), ["row"])
        uri = settings.table_uri("d", "llm_responses")
        old = read_table(spark, uri).drop("run", "asked_again").localCheckpoint()
        old.write.format("delta").mode("overwrite").option("overwriteSchema", "true").partitionBy(
            "partition_date"
        ).save(uri)
        request = frame(spark, first, ["b"]).first().request
        row = {"request_key": hashlib.sha256(request.encode()).hexdigest(), "request": request, "status": "ok"}
        row |= {"text": "poisoned \ud83d", "finish_reason": ["stop"], "prompt_tokens": 10**12, "completion_tokens": 3}
        row |= {"latency_ms": 1.0, "answered_at": "2026-01-02T00:00:00.123457+00:00", "calls": 1}
        for name in ("dead-0-x", "dead-0-y"):  # as after a death between the commit and the journal's end
            Path(journal_address(settings, "d"), f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        again = make(server)
        assert texts(again.process(frame(spark, again, ["a", "b"]), ["row"])) == ["A", "poisoned \ufffd"]
        assert len(server.calls) == 1
    assert read_table(spark, uri).count() == 2
    rows = {r.text: r for r in read_table(spark, uri).collect()}
    assert rows["poisoned \ufffd"].prompt_tokens == 0
    assert "run" in rows["A"].asDict()
