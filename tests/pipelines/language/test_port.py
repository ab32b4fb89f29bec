import json
import time

import pytest
from scripted_server import Reply, chat_reply, error_reply, scripted_server

from infra.errors import SettingError
from infra.settings import LLMSettings
from pipelines.language.errors import EndpointError, QuotaExhausted, ScoringUnavailable
from pipelines.language.port import Port
from pipelines.language.requests import ChatRequest, ScoreRequest, endpoint_name, from_json, to_json

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


def test_answers_are_parallel_to_requests_with_bounded_concurrency():
    def script(path, body, n):
        reply = chat_reply(body["messages"][0]["content"].upper())
        return Reply(reply.body, delay=0.03)

    with scripted_server(script) as server:
        answers = port(server, concurrency=3).generate([request(f"r{i}") for i in range(12)])
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
    ],
)
def test_what_the_model_does_wrong_is_data_and_is_not_retried(reply, status, hint):
    with scripted_server(lambda path, body, n: reply) as server:
        (answer,) = port(server).generate([request(schema=SCHEMA)])
    assert answer.status == status
    assert hint is None or hint in answer.error
    assert len(server.calls) == 1


def test_schema_goes_to_the_endpoint():
    with scripted_server(lambda path, body, n: chat_reply('{"a": "b"}')) as server:
        port(server, extra_body={"top_k": 1}).generate([request(schema=SCHEMA)])
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
        Reply("", hang_up=True),
    ],
)
def test_passing_faults_are_retried(fault):
    with scripted_server(lambda path, body, n: fault if n <= 2 else chat_reply("fine")) as server:
        (answer,) = port(server, max_attempts=4).generate([request()])
    assert (answer.status, answer.text, answer.calls) == ("ok", "fine", 3)


def test_retries_end_and_the_row_says_why():
    with scripted_server(lambda path, body, n: error_reply(500)) as server:
        answers = port(server, max_attempts=3).generate([request("a"), request("b")])
    assert [a.status for a in answers] == ["failed", "failed"]
    assert "tried 3 times" in answers[0].error
    assert len(server.calls) == 6


def test_time_out_is_retried():
    with scripted_server(lambda path, body, n: Reply(chat_reply("x").body, delay=0.6 if n == 1 else 0)) as server:
        (answer,) = port(server, timeout_s=0.2).generate([request()])
    assert (answer.status, answer.calls) == ("ok", 2)


def test_retry_after_is_honoured_by_all_requests_in_flight():
    def script(path, body, n):
        return error_reply(429, "rate_limit_exceeded", Retry_After="0.4") if n == 1 else chat_reply("fine")

    with scripted_server(script) as server:
        started = time.monotonic()
        answers = port(server, concurrency=1).generate([request("a"), request("b")])
        waited = time.monotonic() - started
    assert [a.status for a in answers] == ["ok", "ok"]
    assert waited >= 0.4


def test_exhausted_quota_ends_everything_with_one_call():
    reply = error_reply(429, "insufficient_quota")
    with (
        scripted_server(lambda path, body, n: reply) as server,
        pytest.raises(QuotaExhausted, match="quota is used up"),
    ):
        port(server, first_alone=True, concurrency=8).generate([request(str(i)) for i in range(20)])
    assert len(server.calls) == 1


def test_a_quota_error_half_way_hands_over_what_was_answered():
    def script(path, body, n):
        return chat_reply("fine") if n <= 5 else error_reply(429, "insufficient_quota")

    with scripted_server(script) as server, pytest.raises(QuotaExhausted) as caught:
        port(server, concurrency=2).generate([request(str(i)) for i in range(20)])
    assert sum(a is not None for a in caught.value.answers) == 5
    assert len(server.calls) <= 7


@pytest.mark.parametrize(("status", "hint"), [(401, "llm.api_key"), (404, "no model")])
def test_a_wrong_key_or_model_is_one_clear_error(status, hint):
    reply = error_reply(status)
    with scripted_server(lambda path, body, n: reply) as server, pytest.raises(EndpointError, match=hint):
        port(server, first_alone=True).generate([request(str(i)) for i in range(9)])
    assert len(server.calls) == 1


def test_nobody_listening_is_one_clear_error():
    llm = LLMSettings(base_url="http://127.0.0.1:9/v1", max_attempts=2)
    with pytest.raises(EndpointError, match="nobody listens"):
        Port(llm, first_alone=True, backoff_s=0.01).generate([request()])


def grammar_server(path, body, n):
    """Tokens are characters, and a character's log-probability is minus its code point."""
    if path == "/tokenize":
        return Reply({"tokens": [ord(c) for c in body["content"]]})
    forced = [int(token) for token in body["grammar"].replace("<[", "").replace("]>", "").split()[2:]]
    steps = [{"id": token, "logprob": -float(token)} for token in forced]
    return Reply({"completion_probabilities": steps, "tokens_evaluated": len(body["prompt"])})


def test_scoring_by_grammar():
    with scripted_server(grammar_server) as server:
        result = port(server).score("prompt", [" a", " bc"])
    assert result.totals == (-(32.0 + 97), -(32.0 + 98 + 99))
    assert result.tokens == (2, 3)
    assert [path for path, _ in server.calls].count("/completion") == 2


def test_a_server_that_ignores_the_grammar_is_found_out():
    def script(path, body, n):
        return grammar_server(path, body, n) if path == "/tokenize" else Reply({"content": "free text"})

    with scripted_server(script) as server, pytest.raises(ScoringUnavailable, match=r"no llama\.cpp server"):
        port(server).score("prompt", [" a"])


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
        result = port(server, scoring="echo").score("prompt", [" ab"])
    assert result.totals == (-1.5,)
    assert result.tokens == (3,)


def test_an_endpoint_without_scoring_declares_it():
    silent = Port(LLMSettings(scoring="none"))
    assert not silent.can_score
    with pytest.raises(ScoringUnavailable):
        silent.score("a", [" b"])
    with pytest.raises(SettingError, match=r"llm\.scoring"):
        Port(LLMSettings(scoring="magic"))


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
