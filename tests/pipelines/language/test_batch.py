import subprocess
import sys
import threading
from functools import partial

import pytest
from batch_server import Plan, batch_server
from scripted_server import Reply, chat_reply, error_reply

from infra.settings import REPOSITORY, LLMSettings
from pipelines.language.batch import answer_in_batches
from pipelines.language.errors import EndpointError, QuotaExhausted, ScoringUnavailable
from pipelines.language.requests import ChatRequest, ScoreRequest

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def request(text, schema=None):
    return ChatRequest(
        prompt_name="p", prompt_version="1", messages=({"role": "user", "content": text},), max_tokens=9, schema=schema
    )


def requests(count):
    return [request(f"r{i}") for i in range(count)]


def expected(count):
    return [f"R{i}" for i in range(count)]


def port(server, progress=None, **changes):
    llm = LLMSettings(base_url=server.base_url, batch_poll_s=0.01, timeout_s=5, **changes)
    return partial(answer_in_batches, llm, progress=progress)


def texts(answers):
    return [answer.text for answer in answers]


def by_text(replies):
    """Give the replies of `replies` by what was asked, and the usual one to others."""

    def answer(key, body):
        text = body["messages"][0]["content"]
        return replies[text] if text in replies else chat_reply(text.upper())

    return answer


def test_answers_are_parallel_to_requests_however_they_come_back():
    seen = []
    with batch_server(lambda n: Plan(extra_lines=['{"custom_id": "nobody"}', "no JSON", "[]"])) as server:
        answers = port(server, lambda done, total: seen.append((done, total)))([*requests(20), request("r3")])
    assert texts(answers) == [*expected(20), "R3"]
    assert {(a.status, a.calls, a.prompt_tokens) for a in answers} == {("ok", 1, 11)}
    assert (len(server.batches), len(server.files), set(server.paid.values())) == (1, 2, {1})
    assert (seen[0], seen[-1]) == ((0, 20), (20, 20))


def test_result_lines_are_read_as_online_answers_are():
    replies = {
        "fine": chat_reply('{"a": "b"}'),
        "free": chat_reply("free text"),
        "cut": chat_reply('{"a', "length"),
        "no": chat_reply(None, refusal="I cannot"),
        "filtered": error_reply(400, "content_filter"),
        "long": error_reply(400, "context_length_exceeded", "too long"),
    }
    with batch_server(lambda n: Plan(answer=by_text(replies))) as server:
        answers = port(server)([request(text, SCHEMA) for text in replies])
    assert [a.status for a in answers] == ["ok", "malformed", "truncated", "refused", "refused", "failed"]
    assert len(server.batches) == 1


def test_a_batch_has_a_limit_of_requests():
    with batch_server() as server:
        answers = port(server, batch_requests=3)(requests(7))
    assert [a.status for a in answers] == ["ok"] * 7
    assert [batch["endpoint"] for batch in server.batches.values()] == ["/v1/chat/completions"] * 3


def test_scores_are_no_matter_of_batches():
    score = ScoreRequest(prompt_name="s", prompt_version="1", prompt="a", continuations=(" b",))
    with batch_server() as server, pytest.raises(ScoringUnavailable, match=r"llm\.mode"):
        port(server)([request("a"), score])
    assert not server.steps


def test_what_an_expired_batch_and_faults_of_single_requests_left_goes_into_a_next_batch():
    plans = [
        Plan(answer=by_text({f"r{i}": None for i in range(4, 9)}), ends_as="expired"),
        Plan(answer=by_text({"r4": error_reply(500), "r5": error_reply(429, "rate_limit_exceeded")})),
        Plan(),
    ]
    with batch_server(lambda n: plans[n - 1]) as server:
        answers = port(server)(requests(9))
    assert texts(answers) == expected(9)
    assert [a.calls for a in answers] == [1, 1, 1, 1, 3, 3, 2, 2, 2]
    assert (len(server.batches), set(server.paid.values())) == (3, {1})


def test_a_completed_batch_may_have_no_output_and_rounds_end():
    def nothing(n):
        return Plan(answer=lambda key, body: None)

    with batch_server(nothing) as server:
        answers = port(server, max_attempts=3)(requests(2))
        assert [a.status for a in answers] == ["failed", "failed"]
        assert "ended as completed without an answer (in 3 batches)" in answers[0].error
        assert len(server.batches) == 3
        # A later run knows them and tries three times more.
        port(server, max_attempts=3)(requests(2))
        assert len(server.batches) == 6


@pytest.mark.parametrize(
    ("plan", "kind", "hint"),
    [
        (
            Plan(ends_as="failed", errors=[{"code": "invalid_json_line", "message": "odd", "line": 3}]),
            EndpointError,
            r"batch_001.*failed: invalid_json_line: odd \(line 3\)",
        ),
        (
            Plan(ends_as="failed", errors=[{"code": "billing_hard_limit_reached", "message": "no money"}]),
            QuotaExhausted,
            "quota is used up",
        ),
        (Plan(answer=by_text({"r1": None}), ends_as="cancelled"), EndpointError, "cancelled with 1 of 3"),
        (Plan(answer=by_text({"r1": error_reply(429, "insufficient_quota")})), QuotaExhausted, "quota"),
        (Plan(answer=by_text({"r1": error_reply(404, "model_not_found")})), EndpointError, "no model"),
    ],
)
def test_what_a_person_must_mend_is_one_clear_error_and_the_rest_is_kept_and_paid_once(plan, kind, hint):
    with batch_server(lambda n: plan if n == 1 else Plan()) as server:
        with pytest.raises(kind, match=hint) as caught:
            port(server)(requests(3))
        assert len(server.batches) == 1
        had = [None, None, None] if plan.ends_as == "failed" else ["R0", None, "R2"]
        assert [a and a.text for a in caught.value.answers] == had
        # Mended, the same requests are asked again although nothing was kept.
        assert texts(port(server)(requests(3))) == expected(3)
        assert (len(server.batches), set(server.paid.values())) == (2, {1})


def test_a_wrong_key_or_a_path_that_is_not_there_is_one_clear_error():
    for status, hint in ((401, r"llm\.api_key"), (404, "no such path"), (400, "takes no batch")):
        with (
            batch_server(fault=lambda step, n, status=status: error_reply(status)) as server,
            pytest.raises(EndpointError, match=hint),
        ):
            port(server)(requests(2))
        assert sum(server.steps.values()) == 1


def test_a_full_queue_is_waited_for():
    full = Plan(ends_as="failed", errors=[{"code": "token_limit_exceeded", "message": "Enqueued token limit"}])
    with batch_server(lambda n: full if n == 2 else Plan()) as server:
        server.queue_is_full = lambda: any(
            batch["status"] in ("validating", "in_progress") for batch in server.batches.values()
        )
        answers = port(server, batch_requests=4)(requests(10))
    assert texts(answers) == expected(10)
    assert (len(server.batches), set(server.paid.values())) == (4, {1})
    uploads, creates = server.steps["upload"], server.steps["create"]
    assert uploads == 3
    assert creates > 4


def test_faults_of_the_endpoint_on_the_way_pass_and_nothing_is_paid_twice():
    faults = {
        1: Reply("", hang_up=True),
        2: error_reply(500),
        3: Reply("{not json"),
        4: Reply("<html>", headers={"Content-Type": "text/html"}),
        6: Reply("cut", cut=True),
    }
    with batch_server(fault=lambda step, n: faults.get(n), page=1) as server:
        assert texts(port(server, batch_requests=2, max_attempts=5)(requests(9))) == expected(9)
    # Each creation whose reply was lost was found in the list.
    assert (len(server.batches), server.steps["create"], set(server.paid.values())) == (5, 5, {1})


def test_faults_that_do_not_pass_are_one_clear_error_and_the_next_run_goes_on():
    down = [True]
    with batch_server(fault=lambda step, n: error_reply(503) if step == "look" and down else None) as server:
        with pytest.raises(EndpointError, match="next run attaches"):
            port(server, max_attempts=2)(requests(3))
        down.clear()
        assert texts(port(server)(requests(3))) == expected(3)
    assert (len(server.batches), set(server.paid.values())) == (1, {1})


def test_old_batches_are_found_pages_deep_and_those_whose_files_are_gone_are_replaced():
    with batch_server(page=2) as server:
        assert texts(port(server)(requests(3))) == expected(3)
        for i in range(5):
            port(server)([request(f"other {i}")])
        assert texts(port(server)(requests(3))) == expected(3)
        assert len(server.batches) == 6
        del server.files[server.batches["batch_001"]["output_file_id"]]
        assert texts(port(server)(requests(3))) == expected(3)
        assert len(server.batches) == 7


def test_of_two_runs_that_create_at_once_one_gives_way():
    answers = {}
    both = threading.Barrier(2, timeout=20)

    def meet(step, n):
        if step in ("upload", "create") and n <= 2:
            both.wait()

    with batch_server(fault=meet) as server:
        threads = [threading.Thread(target=lambda i=i: answers.update({i: port(server)(requests(3))})) for i in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [texts(answers[i]) for i in (1, 2)] == [expected(3)] * 2
    assert sorted(batch["status"] for batch in server.batches.values()) == ["cancelled", "completed"]
    assert set(server.paid.values()) == {1}


SUBMIT = """
import sys
from infra.settings import LLMSettings
from pipelines.language.batch import answer_in_batches
from pipelines.language.requests import ChatRequest
llm = LLMSettings(base_url=sys.argv[1], batch_poll_s=0.01, batch_requests=4)
answer_in_batches(llm, [
    ChatRequest(prompt_name="p", prompt_version="1", messages=({"role": "user", "content": f"r{i}"},), max_tokens=9)
    for i in range(10)
])
"""


@pytest.mark.parametrize(("step", "number"), [("upload", 1), ("create", 1), ("create", 2), ("look", 2), ("content", 1)])
def test_a_run_that_is_killed_leaves_batches_that_the_next_run_attaches_to(step, number):
    reached, killed = threading.Event(), threading.Event()

    def fault(at, n):
        if (at, n) == (step, number):
            reached.set()
            killed.wait(30)

    with batch_server(fault=fault) as server:
        run = subprocess.Popen([sys.executable, "-c", SUBMIT, server.base_url], cwd=REPOSITORY)
        assert reached.wait(30)
        run.kill()
        run.wait()
        killed.set()
        assert texts(port(server, batch_requests=4)(requests(10))) == expected(10)
    assert len(server.batches) == 3
    assert (len(server.paid), set(server.paid.values())) == (10, {1})
