"""Endpoints as people run them: which fields they refuse, what they filter, what they send instead of an answer."""

import json
from collections import Counter

import pytest
from batch_server import Plan, batch_server
from endpoints import ENDPOINTS, review_of
from scripted_server import Reply, chat_reply, error_reply, score, scripted_server

from infra.settings import LLMSettings
from pipelines.language.batch import answer_in_batches
from pipelines.language.dialect import Dialect, refused_field
from pipelines.language.errors import EndpointError, ScoringUnavailable
from pipelines.language.port import FORBIDDEN_IN_A_ROW, Port
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.requests import ChatRequest, ScoreRequest

SENT = {"messages": [], "max_tokens": 9, "temperature": 0, "seed": 0, "response_format": {}}


def requests(count=6):
    prompt = load_chat_prompt("review_preference")
    return [prompt.render("like", stars="5", text=f"I love loud drums number{i}.") for i in range(count)]


def port(server, **changes):
    llm = LLMSettings(base_url=server.base_url, **{"timeout_s": 5, "concurrency": 3, **changes})
    return Port(llm, first_alone=True, backoff_s=0.01)


@pytest.mark.parametrize(
    ("status", "error", "field"),
    [
        (400, {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."}, "max_tokens"),
        (400, {"message": "Only the default (1) value is supported.", "param": "temperature"}, "temperature"),
        (400, {"message": "temperature must be strictly positive"}, "temperature"),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}, "seed"),
        (400, 'Unknown name "seed": Cannot find field.', "seed"),
        (400, {"message": "This response_format type is unavailable now"}, "response_format"),
        (400, {"message": "Invalid schema: x", "param": "response_format.json_schema"}, "response_format"),
        (404, {"message": "No endpoints found that support json_schema"}, "response_format"),
        (400, {"message": "Unsupported value: temperature. Supported: max_tokens, seed"}, "temperature"),
        (400, {"message": "`temperature` is deprecated for this model."}, "temperature"),
        (400, {"message": "max_tokens is no longer supported"}, "max_tokens"),
        (400, {"message": "max_tokens and seed cannot be set", "param": "seed"}, "seed"),
        (400, {"message": "seed cannot be set for this model"}, "seed"),
        (400, {"message": "This model does not accept max_tokens"}, "max_tokens"),
        (400, {"message": "This model only allows temperature = 1"}, "temperature"),
        (400, {"message": "temperature can't be set above 1"}, "temperature"),
        (400, {"message": "Schema not supported"}, "response_format"),
        (400, {"message": "This model does not support schemas"}, "response_format"),
        (400, {"message": "seed is not supported by the schema"}, "seed"),
        (400, {"message": "max_tokens cannot be set above 4096"}, None),
        (400, {"message": "max_tokens only allows 4096"}, None),
        (400, {"message": "max_tokens does not accept values over 9"}, None),
        (400, {"message": "The model is no longer available"}, None),
        (400, {"message": "The model is deprecated, use the schema of another"}, None),
        (400, {"message": "max_tokens is too large: 4000. The model's context length is 2048"}, None),
        (400, {"message": "max_tokens must be less than 5"}, None),
        (400, {"message": "not supported", "param": "messages"}, None),
        (404, {"message": "The model does not exist"}, None),
        (500, {"message": "unsupported parameter: seed"}, None),
        (400, {"message": "unsupported parameter: logit_bias"}, None),
    ],
)
def test_which_field_an_endpoint_refuses(status, error, field):
    assert refused_field(status, error, SENT) == field


@pytest.mark.parametrize("name", ENDPOINTS)
def test_six_common_endpoints_are_understood_without_settings(name):
    """Refusals cost a call each, once; what is filtered is one row's matter; what is wrapped is read."""
    endpoint = ENDPOINTS[name]
    with scripted_server(endpoint.script) as server, port(server) as asking:
        answers = asking.answer(requests())
        again = asking.answer(requests(2))
    assert [answer.status for answer in (*answers, *again)] == ["ok"] * 8
    assert {json.loads(answer.text)["preference"] for answer in answers} == {"Prefers loud drums"}
    assert len(server.calls) == 8 + endpoint.refusals
    assert answers[0].calls == 1 + endpoint.refusals
    last = server.calls[-1][1]
    assert [field for field in endpoint.never_takes if field in last] == []


def test_what_was_learnt_of_an_endpoint_is_taken_on_by_the_next_port():
    endpoint = ENDPOINTS["reasoning model"]
    with scripted_server(endpoint.script) as server:
        llm = LLMSettings(base_url=server.base_url, timeout_s=5)
        with port(server) as first:
            first.answer(requests(1))
        calls = len(server.calls)
        known = Dialect.from_json(first.dialect.to_json())
        assert known == first.dialect != Dialect()
        Port(llm, dialect=known).answer(requests(2))
    assert len(server.calls) == calls + 2


def test_a_field_without_a_replacement_left_ends_all_and_names_the_setting():
    def refuses(*fields):
        def script(path, body, n):
            field = next((field for field in fields if field in body), None)
            return error_reply(400, message=f"Unsupported parameter: '{field}'") if field else chat_reply("x")

        return script

    with (
        scripted_server(refuses("max_tokens", "max_completion_tokens")) as server,
        pytest.raises(EndpointError, match=r"takes neither max_completion_tokens.*llm\.extra_body") as caught,
    ):
        port(server).answer(requests())
    assert len(server.calls) == 2
    assert len(str(caught.value)) <= 300
    with (
        scripted_server(refuses("top_k", "seed")) as server,
        pytest.raises(EndpointError, match=r"does not take seed, which llm\.extra_body sets: take it out"),
    ):
        port(server, extra_body={"seed": 7}).answer(requests())
    with scripted_server(refuses("seed", "max_tokens", "response_format")) as server:
        own = {"seed": None, "max_tokens": None, "num_predict": 50, "response_format": None}
        port(server, extra_body=own).answer(requests(1))
    body = server.calls[0][1]
    assert body["num_predict"] == 50
    assert "JSON schema" in body["messages"][0]["content"]
    assert len(server.calls) == 1


def test_a_refusal_after_the_fields_have_worked_is_about_that_request():
    def script(path, body, n):
        odd = review_of(body).endswith("number3.")
        return error_reply(400, message="Unsupported value: temperature") if odd else chat_reply(ANSWER)

    with scripted_server(script) as server:
        answers = port(server, concurrency=1).answer(requests())
    assert [answer.status for answer in answers] == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert all("temperature" in body for _, body in server.calls)


ANSWER = '{"preference": "Prefers loud drums"}'


def forbids(*numbers):
    def script(path, body, n):
        number = int(review_of(body).rsplit("number", 1)[1].rstrip("."))
        return error_reply(403, message="Forbidden") if number in numbers else chat_reply(ANSWER)

    return script


@pytest.mark.parametrize("forbidden", [(0,), (3,), (0, 1, 5)])
def test_a_403_is_about_the_input_once_the_key_has_worked_even_when_it_comes_first(forbidden):
    with scripted_server(forbids(*forbidden)) as server:
        heard = []
        answers = port(server).answer(requests(), on_answer=lambda number, answer: heard.append(number))
    assert [i for i, answer in enumerate(answers) if answer.status == "refused"] == list(forbidden)
    assert all("HTTP 403" in answers[i].error and answers[i].final for i in forbidden)
    assert sorted(heard) == list(range(6))
    assert len(server.calls) == 6


def test_403s_and_nothing_else_are_about_the_key():
    with scripted_server(forbids(*range(99))) as server:
        for count, calls in ((1, 1), (9, 3)):
            before = len(server.calls)
            with pytest.raises(EndpointError, match=r"llm\.api_key"):
                port(server).answer(requests(count))
            assert len(server.calls) - before == calls
    with scripted_server(forbids(*range(2, 99))) as server, pytest.raises(EndpointError, match="withdrawn") as caught:
        port(server, concurrency=1).answer(requests(60))
    assert Counter(answer.status if answer else None for answer in caught.value.answers) == {
        "ok": 2,
        "refused": FORBIDDEN_IN_A_ROW,
        None: 60 - 2 - FORBIDDEN_IN_A_ROW,
    }
    with scripted_server(forbids(0)) as server:
        llm = LLMSettings(base_url=server.base_url)
        (answer,) = Port(llm, first_alone=True, key_worked=True).answer(requests(1))
    assert answer.status == "refused"
    flagged = error_reply(403, message="Your input was flagged by moderation")
    with scripted_server(lambda path, body, n: flagged) as server:
        assert [answer.status for answer in port(server).answer(requests(1))] == ["refused"]


@pytest.mark.parametrize(
    "odd",
    [
        Reply("[" * 3000),
        Reply('{"choices": ' + "[" * 3000 + "]" * 3000 + "}"),
        Reply('{"usage": {"prompt_tokens": ' + "9" * 5000 + "}}"),
        Reply("x" * 2_000_000),
        error_reply(400, message="[" * 3000),
        Reply("[" * 3000, status=400),
        Reply({"error": {"message": ["x"] * 5000, "code": {"a": 1}, "type": [1]}}, status=422),
    ],
)
def test_no_body_is_an_exception(odd):
    with scripted_server(lambda path, body, n: odd if n <= 2 else chat_reply(ANSWER)) as server:
        first, second = port(server, max_attempts=1, concurrency=1).answer(requests(2))
        (third,) = port(server).answer(requests(1))
    assert {first.status, second.status} <= {"malformed", "failed"}
    assert len(first.error) <= 300
    assert third.status == "ok"


def test_a_reply_that_does_not_end_is_cut_off(monkeypatch):
    monkeypatch.setattr("pipelines.language.port.MOST_BYTES", 100_000)
    with scripted_server(lambda path, body, n: Reply("x" * 200_000)) as server:
        (answer,) = port(server, max_attempts=3).answer(requests(1))
    assert (answer.status, answer.calls) == ("malformed", 1)
    assert "more than 100000 bytes" in answer.error


@pytest.mark.parametrize(
    "odd", [{"tokens": "x"}, {"tokens": [1.5]}, {"completion_probabilities": 7}, {"completion_probabilities": [7]}]
)
def test_odd_scores_are_told_as_such(odd):
    def script(path, body, n):
        return Reply(odd if path == "/tokenize" or "tokens" not in odd else {})

    with scripted_server(script) as server, pytest.raises(EndpointError, match=r"no llama\.cpp server"):
        score(port(server), "a", " b")


def test_an_endpoint_that_takes_no_echo_says_so():
    refusal = error_reply(400, message="Setting 'echo' is not supported")
    with (
        scripted_server(lambda path, body, n: refusal) as server,
        pytest.raises(ScoringUnavailable, match=r"does not take echo .*llm\.scoring to none"),
    ):
        score(port(server, scoring="echo"), "a", " b")
    assert len(server.calls) == 1


@pytest.mark.parametrize("logprob", [None, "x", [1], 10**400])
def test_a_score_that_is_no_number_is_malformed(logprob):
    def script(path, body, n):
        if path == "/tokenize":
            return Reply({"tokens": [1]})
        return Reply({"completion_probabilities": [{"id": 1, "logprob": logprob}], "tokens_evaluated": 10**12})

    with scripted_server(script) as server:
        request = ScoreRequest(prompt_name="", prompt_version="", prompt="a", continuations=(" b",))
        (answer,) = port(server).answer([request])
    assert (answer.status, answer.prompt_tokens) == ("malformed", 0)


def test_batches_learn_fields_too_and_ask_again_where_an_earlier_answer_was_useless():
    endpoint = ENDPOINTS["reasoning model"]
    asked = [
        ChatRequest(prompt_name="p", prompt_version="1", messages=({"role": "user", "content": f"r{i}"},), max_tokens=9)
        for i in range(3)
    ]

    def answer(key, body):
        return endpoint.refusal(body) or chat_reply(body["messages"][0]["content"].upper())

    with batch_server(lambda n: Plan(answer=answer)) as server:
        llm = LLMSettings(base_url=server.base_url, mode="batch", batch_poll_s=0.01, max_attempts=2)
        for _ in range(2):
            assert [a.text for a in answer_in_batches(llm, asked, [0, 0, 0])] == ["R0", "R1", "R2"]
            assert set(server.paid.values()) == {1}
        made = len(server.batches)
        assert made == 1 + 3  # max_tokens, temperature and seed are refused, one after the other
        answer_in_batches(llm, asked[:1], [1])
        assert len(server.batches) > made
