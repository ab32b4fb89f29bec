import pytest
from pyspark.sql import functions as sf
from scripted_server import Reply, chat_reply, error_reply, scripted_server

from infra.progress import read_progress
from infra.settings import LLMSettings
from pipelines.delta_tables import read_table
from pipelines.language import ledger as ledger_module
from pipelines.language.errors import EndpointError, QuotaExhausted, TooManyBadAnswers
from pipelines.language.ledger import Ledger
from pipelines.language.requests import ChatRequest
from schemas.stage_request import StageRequest


@pytest.fixture
def make(spark, settings):
    def build(server, **overrides):
        values = {"chunk": 4, **overrides}
        request = StageRequest(
            stage="preferences",
            dataset="d",
            partition="2026-01-02",
            overrides={f"llm.{name}": value for name, value in values.items()},
        )
        llm = LLMSettings(base_url=server.base_url, concurrency=2, max_attempts=1, timeout_s=5)
        return Ledger(spark, settings.model_copy(update={"llm": llm}), request, "preferences")

    return build


def frame(spark, ledger, texts):
    def line(text):
        message = {"role": "user", "content": text}
        return ledger.to_json(ChatRequest(prompt_name="p", prompt_version="1", messages=(message,), max_tokens=9))

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
        counts = first.usage.counts()
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


def test_a_job_killed_half_way_pays_at_most_one_chunk_twice(spark, make, monkeypatch):
    wanted = [f"t{i}" for i in range(8)]
    append, appended = ledger_module.append_rows, []

    def dies_at_the_second(*args):
        if appended:
            raise RuntimeError("killed")
        appended.append(append(*args))
        return appended[-1]

    with scripted_server(upper) as server:
        monkeypatch.setattr(ledger_module, "append_rows", dies_at_the_second)
        killed = make(server, chunk=3)
        with pytest.raises(RuntimeError, match="killed"):
            killed.process(frame(spark, killed, wanted), ["row"])
        assert len(server.calls) == 6
        monkeypatch.setattr(ledger_module, "append_rows", append)
        again = make(server, chunk=5)
        assert texts(again.process(frame(spark, again, wanted), ["row"])) == [f"T{i}" for i in range(8)]
    assert again.usage.cache_hits == 3
    asked = [body["messages"][0]["content"] for _, body in server.calls]
    assert len(asked) == 11
    assert sorted(set(asked)) == wanted
    assert sorted(text for text in wanted if asked.count(text) == 2) == ["t3", "t4", "t5"]


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
            ledger = make(server, max_failures=2, chunk=8)
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


def test_several_tasks_share_the_concurrency(spark, make):
    def slow(path, body, n):
        return Reply(upper(path, body, n).body, delay=0.1)

    with scripted_server(slow) as server:
        ledger = make(server, tasks=2, chunk=8)
        assert texts(ledger.process(frame(spark, ledger, list("abcdefgh")), ["row"])) == list("ABCDEFGH")
    assert len(server.calls) == 8
    assert server.most_in_flight <= 2
