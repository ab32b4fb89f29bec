"""Hundreds of requests against an endpoint that does everything wrong now and then."""

import random
import threading
from collections import Counter, defaultdict

import pytest
from scripted_server import Reply, chat_reply, error_reply, scripted_server

from infra.settings import LLMSettings
from pipelines.language import port as port_module
from pipelines.language.port import Port
from pipelines.language.requests import ChatRequest

SCHEMA = {"type": "object", "properties": {"line": {"type": "string"}}, "required": ["line"]}
FINE = chat_reply('{"line": "Prefers quiet gear"}')

PASSING = {
    "storm": error_reply(429, "rate_limit_exceeded"),
    "storm with a wait": error_reply(429, "rate_limit_exceeded", Retry_After_Ms="5"),
    "unavailable": error_reply(503, Retry_After="0.005"),
    "server error": error_reply(500),
    "bad gateway": Reply("<html>bad gateway</html>", 502, {"Content-Type": "text/html"}),
    "dropped": Reply("", hang_up=True),
    "cut": Reply(FINE.body, cut=True),
    "malformed body": Reply('{"choices": ['),
    "no JSON at all": Reply("<html>welcome</html>", headers={"Content-Type": "text/html"}),
}
FINAL = {
    "ok": FINE,
    "refused": chat_reply(None, refusal="I cannot help with that"),
    "truncated": chat_reply('{"line": "Pref', "length"),
    "malformed": chat_reply("Ich mag leise Geräte."),
    "failed": error_reply(400, "context_length_exceeded", "too long"),
}


class Endpoint:
    """For each request some passing faults, drawn beforehand, and then a final reply; both are counted."""

    def __init__(self, count, seed):
        draw = random.Random(seed)
        self.faults = {f"r{i}": draw.choices(list(PASSING), k=draw.choice((0, 0, 1, 2, 3))) for i in range(count)}
        self.ends = {f"r{i}": draw.choices(list(FINAL), weights=(8, 1, 1, 1, 1))[0] for i in range(count)}
        self.stalled = {f"r{i}" for i in range(0, count, 100)}
        self.sent, self.answered = Counter(), Counter()
        self.after_answer = defaultdict(int)
        self.lock = threading.Lock()

    def script(self, path, body, n):
        text = body["messages"][0]["content"]
        with self.lock:
            self.sent[text] += 1
            self.after_answer[text] += self.answered[text] > 0
            if self.sent[text] == 1 and text in self.stalled:
                return Reply(FINE.body, delay=3)
            past = self.sent[text] - 1 - (text in self.stalled)
            if past < len(self.faults[text]):
                return PASSING[self.faults[text][past]]
            self.answered[text] += 1
            return FINAL[self.ends[text]]


@pytest.mark.parametrize(("transport", "count"), [("aiohttp", 300), ("httpx", 120)])
def test_each_request_ends_as_it_must_and_none_is_sent_again_once_answered(transport, count, monkeypatch):
    if transport == "httpx":
        monkeypatch.setattr(port_module, "find_spec", lambda name: None)
    endpoint = Endpoint(count, seed=7)
    asked = [
        ChatRequest(
            prompt_name="p",
            prompt_version="1",
            messages=({"role": "user", "content": text},),
            max_tokens=9,
            schema=SCHEMA,
        )
        for text in endpoint.ends
    ]
    with scripted_server(endpoint.script) as server:
        llm = LLMSettings(base_url=server.base_url, concurrency=24, timeout_s=2, max_attempts=6)
        answers = Port(llm, first_alone=True, backoff_s=0.01).answer(asked)
    assert [answer.status for answer in answers] == list(endpoint.ends.values())
    assert set(endpoint.answered.values()) == {1}
    assert sum(endpoint.after_answer.values()) == 0
    # What the port counts is what came in, and nothing but the drawn faults was sent again.
    assert [answer.calls for answer in answers] == [endpoint.sent[text] for text in endpoint.ends]
    assert len(server.calls) == count + sum(map(len, endpoint.faults.values())) + len(endpoint.stalled)
    assert server.most_in_flight <= 24 + len(endpoint.stalled)


def test_faults_that_never_pass_end_as_failures_with_so_many_calls_as_allowed():
    dead = {f"r{i}": name for i, name in enumerate(name for name in PASSING if "storm" not in name)}

    def script(path, body, n):
        text = body["messages"][0]["content"]
        return PASSING[dead[text]] if text in dead else FINE

    texts = [*dead, *(f"fine {i}" for i in range(50))]
    with scripted_server(script) as server:
        llm = LLMSettings(base_url=server.base_url, concurrency=16, timeout_s=5, max_attempts=3)
        answers = Port(llm, backoff_s=0.01).answer(
            [
                ChatRequest(
                    prompt_name="p", prompt_version="1", messages=({"role": "user", "content": text},), max_tokens=9
                )
                for text in texts
            ]
        )
    bad = answers[: len(dead)]
    assert {answer.status for answer in bad} == {"failed", "malformed"}
    assert all("tried 3 times" in answer.error for answer in bad)
    assert {answer.status for answer in answers[len(dead) :]} == {"ok"}
    assert len(server.calls) == 3 * len(dead) + 50
