import email.utils
import hashlib
import json
import time
from typing import get_args

import pytest
from scripted_server import Reply, chat_reply, error_reply, score, scripted_server

from infra.settings import LLMSettings
from pipelines.language import port as port_module
from pipelines.language.errors import EndpointError, QuotaExhausted, ScoringUnavailable
from pipelines.language.pacing import Pacer, retry_after
from pipelines.language.port import Port
from pipelines.language.requests import ChatRequest, ScoreRequest, endpoint_name, from_json, to_json
from pipelines.language.scoring import SCORERS

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def request(text="hello", schema=None):
    return ChatRequest(
        prompt_name="p",
        prompt_version="1",
        messages=({"role": "user", "content": text},),
        max_tokens=9,
        schema=schema,
    )


def port(server, *, first_alone=False, **changes):
    llm = LLMSettings(base_url=server.base_url, **{"timeout_s": 5, **changes})
    return Port(llm, first_alone=first_alone, backoff_s=0.01)


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request, monkeypatch):
    """What the openai client talks through: aiohttp where it is installed, httpx elsewhere."""
    if request.param == "httpx":
        monkeypatch.setattr(port_module, "find_spec", lambda name: None)
    return request.param


def test_answers_are_parallel_to_requests_with_bounded_concurrency():
    def script(path, body, n):
        reply = chat_reply(body["messages"][0]["content"].upper())
        return Reply(reply.body, delay=0.03)

    with scripted_server(script) as server:
        answers = port(server, concurrency=3).answer([request(f"r{i}") for i in range(12)])
    assert [a.text for a in answers] == [f"R{i}" for i in range(12)]
    assert {a.status for a in answers} == {"ok"}
    assert server.most_in_flight == 3
    assert (answers[0].prompt_tokens, answers[0].completion_tokens, answers[0].calls) == (11, 3, 1)
    path, body = server.calls[0]
    assert path == "/v1/chat/completions"
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 9)


@pytest.mark.parametrize(
    ("reply", "status", "hint"),
    [
        (chat_reply('{"a": "b"}'), "ok", None),
        (chat_reply('{"a": "b'), "malformed", "no JSON"),
        (chat_reply('{"b": 1}'), "malformed", "schema"),
        (chat_reply(""), "malformed", "empty"),
        (chat_reply('{"a": "', finish_reason="length"), "truncated", "9 tokens"),
        (chat_reply(None, refusal="I cannot help with that"), "refused", "I cannot"),
        (chat_reply("", finish_reason="content_filter"), "refused", "filter"),
        (error_reply(400, "content_filter"), "refused", "content_filter"),
        (error_reply(400, "bad", "prompt too long"), "failed", "too long"),
        (chat_reply("free text, no JSON"), "malformed", "no JSON"),
        (Reply({"error": {"message": "upstream is down", "code": 502}}), "malformed", "upstream is down"),
        (Reply({"choices": ["odd"], "usage": "odd"}), "malformed", "empty"),
        (Reply([1, 2]), "malformed", "no choices"),
    ],
)
def test_what_the_model_does_wrong_is_data_and_is_not_retried(reply, status, hint):
    with scripted_server(lambda path, body, n: reply) as server:
        (answer,) = port(server).answer([request(schema=SCHEMA)])
    assert answer.status == status
    assert hint is None or hint in answer.error
    assert len(server.calls) == 1


def test_schema_goes_to_the_endpoint():
    with scripted_server(lambda path, body, n: chat_reply('{"a": "b"}')) as server:
        port(server, extra_body={"top_k": 1}).answer([request(schema=SCHEMA)])
    body = server.calls[0][1]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert body["top_k"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        error_reply(500),
        error_reply(503),
        error_reply(429, "rate_limit_exceeded"),
        Reply("{not json"),
        Reply("<html>", headers={"Content-Type": "text/html"}),
        Reply("", hang_up=True),
        Reply(chat_reply("fine").body, cut=True),
    ],
)
def test_passing_faults_are_retried(transport, fault):
    with scripted_server(lambda path, body, n: fault if n <= 2 else chat_reply("fine")) as server:
        (answer,) = port(server, max_attempts=4).answer([request()])
    assert (answer.status, answer.text, answer.calls) == ("ok", "fine", 3)


def test_retries_end_and_the_row_says_why():
    with scripted_server(lambda path, body, n: error_reply(500)) as server:
        answers = port(server, max_attempts=3).answer([request("a"), request("b")])
    assert [a.status for a in answers] == ["failed", "failed"]
    assert "tried 3 times" in answers[0].error
    assert len(server.calls) == 6


def test_time_out_is_retried_and_told(transport):
    with scripted_server(lambda path, body, n: Reply(chat_reply("x").body, delay=1.2 if n != 2 else 0)) as server:
        retried, late = port(server, timeout_s=0.4, max_attempts=2, concurrency=1).answer([request(), request()])
    assert (retried.status, retried.calls) == ("ok", 2)
    assert (late.status, late.calls) == ("failed", 2)
    assert "no answer within 0.4 s" in late.error


def test_a_dropped_connection_is_told(transport):
    with scripted_server(lambda path, body, n: Reply("", hang_up=True)) as server:
        (answer,) = port(server, max_attempts=2).answer([request()])
    assert answer.status == "failed"
    assert "connection failed" in answer.error


@pytest.mark.parametrize("header", [{"Retry_After": "0.4"}, {"Retry_After_Ms": "400", "Retry_After": "9"}])
def test_what_the_endpoint_asks_to_wait_is_waited_by_all(header):
    throttled, at = [], []

    def script(path, body, n):
        at.append(time.monotonic())
        if n == 1:
            throttled.append(body["messages"][0]["content"])
            return error_reply(429, "rate_limit_exceeded", **header)
        return chat_reply("fine")

    with scripted_server(script) as server:
        answers = port(server, first_alone=True, concurrency=3).answer([request(str(i)) for i in range(6)])
    assert {a.status for a in answers} == {"ok"}
    assert len(server.calls) == 7
    assert min(at[1:]) - at[0] >= 0.4


def test_how_long_an_endpoint_asks_to_wait():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 3500 < retry_after({"retry-after": email.utils.formatdate(time.time() + 3600, usegmt=True)}) <= 3600
    assert retry_after({"retry-after": email.utils.formatdate(0)}) == 0
    assert [retry_after({"retry-after": odd}) for odd in ("soon", "nan", "")] == [None, None, None]
    assert retry_after({}) is None


def test_a_wait_that_is_too_long_ends_everything():
    reply = error_reply(429, "rate_limit_exceeded", Retry_After="86400")
    with (
        scripted_server(lambda path, body, n: chat_reply("fine") if n <= 2 else reply) as server,
        pytest.raises(EndpointError, match=r"asks to wait 86400 s.*llm\.longest_wait_s") as caught,
    ):
        port(server, concurrency=1).answer([request(str(i)) for i in range(9)])
    assert len(server.calls) == 3
    assert [a is not None for a in caught.value.answers] == [True, True] + 7 * [False]


def test_throttling_does_not_use_up_the_attempts_but_ends():
    def script(path, body, n):
        text = body["messages"][0]["content"]
        seen.append(text)
        storm = text.startswith("too large") or (text == "unlucky" and seen.count(text) <= 5)
        return error_reply(429, "rate_limit_exceeded") if storm else chat_reply("fine")

    seen = []
    with scripted_server(script) as server:
        settings = {"max_attempts": 2, "max_throttled": 6, "concurrency": 2}
        unlucky, large, other = port(server, **settings).answer(list(map(request, ("unlucky", "too large", "other"))))
        assert (unlucky.status, unlucky.calls) == ("ok", 6)
        assert (large.status, large.calls, other.status) == ("failed", 7, "ok")
        (alone,) = port(server, **settings).answer([request("too large")])
        assert (alone.status, alone.calls) == ("failed", 7)
        with pytest.raises(EndpointError, match="nothing but HTTP 429"):
            port(server, **settings).answer([request("too large 1"), request("too large 2")])


def test_pace_halves_once_for_all_that_were_out_and_grows_by_one_a_round():
    pacer = Pacer(16)
    pacer.throttled(0)
    pacer.throttled(0)
    assert pacer.allowed == 8
    for _ in range(9):
        pacer.answered()
    assert pacer.allowed == 9
    for turn in range(1, 9):
        pacer.throttled(turn)
    assert pacer.allowed == 1
    for _ in range(500):
        pacer.answered()
    assert pacer.allowed == 16


def test_fewer_are_in_flight_while_the_endpoint_throttles():
    refused = []

    def script(path, body, n):
        if server.in_flight > 4:
            refused.append(n)
            return error_reply(429, "rate_limit_exceeded")
        return Reply(chat_reply("fine").body, delay=0.01)

    with scripted_server(script) as server:
        answers = port(server, concurrency=16).answer([request(str(i)) for i in range(120)])
    assert {a.status for a in answers} == {"ok"}
    assert len(server.calls) == 120 + len(refused)
    assert 1 <= len(refused) < 120


def test_an_open_port_keeps_its_connections_and_asks_alone_only_once():
    def script(path, body, n):
        return Reply(chat_reply("fine").body, delay=0.05)

    with scripted_server(script) as server, port(server, first_alone=True, concurrency=3) as held:
        for _ in range(3):
            assert [a.status for a in held.answer([request(str(i)) for i in range(3)])] == ["ok"] * 3
        assert server.connections == 3


def test_exhausted_quota_ends_everything_with_one_call():
    reply = error_reply(429, "insufficient_quota")
    with (
        scripted_server(lambda path, body, n: reply) as server,
        pytest.raises(QuotaExhausted, match="quota is used up"),
    ):
        port(server, first_alone=True, concurrency=8).answer([request(str(i)) for i in range(20)])
    assert len(server.calls) == 1


def test_a_quota_error_half_way_hands_over_what_was_answered():
    def script(path, body, n):
        return chat_reply("fine") if n <= 5 else error_reply(429, "insufficient_quota")

    with scripted_server(script) as server, pytest.raises(QuotaExhausted) as caught:
        port(server, concurrency=2).answer([request(str(i)) for i in range(20)])
    assert sum(a is not None for a in caught.value.answers) == 5
    assert len(server.calls) <= 7


@pytest.mark.parametrize(("status", "hint"), [(401, "llm.api_key"), (404, "no model")])
def test_a_wrong_key_or_model_is_one_clear_error(status, hint):
    reply = error_reply(status)
    with scripted_server(lambda path, body, n: reply) as server, pytest.raises(EndpointError, match=hint):
        port(server, first_alone=True).answer([request(str(i)) for i in range(9)])
    assert len(server.calls) == 1


def test_nobody_listening_is_one_clear_error(transport):
    llm = LLMSettings(base_url="http://127.0.0.1:9/v1", max_attempts=2)
    with pytest.raises(EndpointError, match="no server listens"):
        Port(llm, first_alone=True, backoff_s=0.01).answer([request()])


def grammar_server(path, body, n):
    """Tokens are characters, and a character's log-probability is minus its code point."""
    if path == "/tokenize":
        return Reply({"tokens": [ord(c) for c in body["content"]]})
    forced = [int(token) for token in body["grammar"].replace("<[", "").replace("]>", "").split()[2:]]
    steps = [{"id": token, "logprob": -float(token)} for token in forced]
    return Reply({"completion_probabilities": steps, "tokens_evaluated": len(body["prompt"])})


def test_scoring_by_grammar():
    with scripted_server(grammar_server) as server:
        result = score(port(server), "prompt", " a", " bc")
    assert result.logprobs == (-(32.0 + 97), -(32.0 + 98 + 99))
    assert result.token_counts == (2, 3)
    assert [path for path, _ in server.calls].count("/completion") == 2


def test_a_server_that_ignores_the_grammar_is_found_out():
    def script(path, body, n):
        return grammar_server(path, body, n) if path == "/tokenize" else Reply({"content": "free text"})

    with scripted_server(script) as server, pytest.raises(ScoringUnavailable, match=r"no llama\.cpp server"):
        score(port(server), "prompt", " a")


def test_scoring_by_echo():
    def script(path, body, n):
        text = body["prompt"] + "!"
        assert body["echo"] is True
        logprobs = {
            "tokens": list(text),
            "token_logprobs": [None, *(-0.5 for _ in text[1:])],
            "text_offset": list(range(len(text))),
            "top_logprobs": None,
        }
        choice = {"index": 0, "text": text, "finish_reason": "length", "logprobs": logprobs}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1, "total_tokens": 9}
        return Reply(
            {"id": "c", "object": "text_completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        )

    with scripted_server(script) as server:
        result = score(port(server, scoring="echo"), "prompt", " ab")
    assert result.logprobs == (-1.5,)
    assert result.token_counts == (3,)


def test_an_endpoint_without_scoring_declares_it():
    silent = Port(LLMSettings(scoring="none"))
    with pytest.raises(ScoringUnavailable):
        score(silent, "a", " b")
    assert get_args(LLMSettings.model_fields["scoring"].annotation) == (*SCORERS, "none")


def test_keys_of_what_was_paid_for_stay_as_they_are():
    llm = LLMSettings(
        base_url="https://key@api.example.org:8443/v1/", model="m", scoring="echo", extra_body={"top_k": 1}
    )
    chat = to_json(request("h\u00e9llo", schema=SCHEMA), llm)
    score = to_json(ScoreRequest(prompt_name="s", prompt_version="1", prompt="a", continuations=(" b", " c")), llm)
    assert [hashlib.sha256(text.encode()).hexdigest() for text in (chat, score)] == [
        "e9f683319e872a968ac031f06b82380a7cc1bee2e7b1f82f5af70b6eae8c5d4e",
        "2728c2cf1ed3175cd66c7acba3c1609a80d61b7f2363725918e7670017391855",
    ]
    assert [to_json(from_json(text), llm) for text in (chat, score)] == [chat, score]


def test_the_key_of_a_request_follows_all_that_the_answer_depends_on():
    llm = LLMSettings(base_url="http://user:secret@127.0.0.1:8095/v1")
    base = to_json(request(schema=SCHEMA), llm)
    assert from_json(base) == request(schema=SCHEMA)
    assert "secret" not in base
    assert to_json(request(schema=SCHEMA), llm.model_copy(update={"base_url": "http://localhost:1/v1"})) == base
    others = [
        to_json(request("other", schema=SCHEMA), llm),
        to_json(request(), llm),
        to_json(request(schema=SCHEMA), llm.model_copy(update={"model": "m2"})),
        to_json(request(schema=SCHEMA), llm.model_copy(update={"base_url": "https://api.example.org/v1"})),
        to_json(request(schema=SCHEMA), llm.model_copy(update={"extra_body": {"top_k": 1}})),
    ]
    assert len({base, *others}) == 6
    score = ScoreRequest(prompt_name="s", prompt_version="1", prompt="a", continuations=(" b",))
    assert from_json(to_json(score, llm)) == score
    assert json.loads(to_json(score, llm))["scoring"] == "grammar"
    assert endpoint_name("https://key@api.example.org:8443/v1/") == "https://api.example.org:8443/v1"
