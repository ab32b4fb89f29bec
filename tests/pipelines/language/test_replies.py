"""The one parser of what comes off the wire: every way in which endpoints wrap, bend or bloat an answer."""

import datetime as dt
import json

import pyarrow as pa
import pytest

from pipelines.language.answering import ANSWERED
from pipelines.language.journal import journal
from pipelines.language.replies import MOST_DEPTH, MOST_TEXT, NoJson, bounded, clean, parsed, read
from pipelines.language.requests import Answer, ChatRequest

SCHEMA = {
    "type": "object",
    "properties": {"line": {"type": "string"}},
    "required": ["line"],
    "additionalProperties": False,
}
JSON = '{"line": "Prefers quiet gear"}'
OTHER = '{"line": "Avoids loud gear"}'

THOUGHTS = [
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<THINK>", "</THINK>"),
    ("[THINK]", "[/THINK]"),
    ("", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
]
FINAL = "<|start|>assistant<|channel|>final<|message|>"


def asked(schema=SCHEMA):
    return ChatRequest(prompt_name="p", prompt_version="1", messages=(), max_tokens=9, schema=schema)


def reply(content, *, finish="stop", **message):
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    "message",
    [
        {"content": JSON},
        {"content": f"\n {JSON}\n"},
        {"content": f"<think>First {OTHER}? No.</think>\n{JSON}"},
        {"content": f"First {OTHER}? No.</think>{JSON}"},
        *({"content": f"{begins}First {OTHER}? No.{ends}{JSON}"} for begins, ends in THOUGHTS),
        {"content": f"{JSON}\n<reasoning>Not {OTHER}.</reasoning>"},
        {"content": f"<think>a <think> tag</think>Draft: {OTHER}<thinking>No.</thinking>{JSON}"},
        {"content": f"<|channel|>analysis<|message|>{OTHER}?<|end|>{FINAL}{JSON}<|return|>"},
        {"content": f"{FINAL}{OTHER}<|end|>{FINAL.replace('<|message', ' <|constrain|>json<|message')}{JSON}"},
        {"content": f"```json\n{JSON}\n```"},
        {"content": f"```\n{JSON}\n```\nI hope that helps."},
        {"content": f"Sure! {{as you wish}} Here it is: {JSON} Anything else?"},
        {"content": f"{JSON}\n{JSON}"},
        {"content": [{"type": "thinking", "text": "hm"}, {"type": "text", "text": JSON}]},
        {"content": None, "reasoning_content": f"The writer likes quiet gear.\n{JSON}"},
        {"content": "", "reasoning": JSON},
        {"content": JSON, "reasoning_content": OTHER},
    ],
)
def test_what_stands_around_an_answer_is_left_out(message):
    answer = read({"choices": [{"message": message, "finish_reason": "stop"}]}, asked())
    assert (answer.status, answer.text) == ("ok", JSON)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "empty"),
        ("", "empty"),
        (7, "empty"),
        ("<think>I wonder", "no JSON"),
        ("[" * 3000, "no JSON"),
        ('{"a":' * 3000, "no JSON"),
        ("[" * 3000 + "]" * 3000, "nested more than 200 deep"),
        (JSON[:-1], "no JSON"),
        (f"{JSON} or {OTHER}", "more than one answer"),
        ('{"line": 5}', "schema"),
        ('{"line": NaN}', "NaN"),
        ('{"line": "x", "n": ' + "9" * 5000 + "}", "no JSON"),
        ("x" * (MOST_TEXT + 1), "100001 characters"),
        ("{" * MOST_TEXT, "no JSON"),
    ],
)
def test_what_is_no_answer_says_why_in_a_few_words(content, hint):
    answer = read(reply(content), asked())
    assert answer.status == "malformed"
    assert hint in answer.error
    assert len(answer.error) <= 300
    assert len(answer.text or "") <= MOST_TEXT


def test_free_text_is_what_is_said_after_the_thoughts():
    assert read(reply("<think>hm</think> Good."), asked(None)).text == "Good."
    assert read(reply("<think>hm", reasoning_content="x"), asked(None)).status == "malformed"
    for begins, ends in THOUGHTS:
        assert read(reply(f"{begins}plan{ends} Good."), asked(None)).text == "Good."
    channel = "<|channel|>analysis<|message|>hm"
    assert read(reply(f"{channel}<|end|>{FINAL}Good.<|return|>"), asked(None)).text == "Good."
    assert read(reply(channel), asked(None)).status == "malformed"


def test_half_surrogates_are_replaced_wherever_they_stand():
    answer = read(reply('{"line": "a\\ud83d b"}'), asked())
    assert json.loads(answer.text) == {"line": "a\ufffd b"}
    assert read(reply('{"line": "\\ud83d\\ude00"}'), asked()).text == '{"line": "\\ud83d\\ude00"}'
    assert read(reply("a\ud83d"), asked(None)).text == "a\ufffd"
    assert read(reply("x", finish="\udcff"), asked(None)).finish_reason == "\ufffd"
    assert clean("\ud83d\ude00") == "\U0001f600"
    refused = read(reply(None, refusal="no\udc00"), asked())
    assert (refused.status, refused.error) == ("refused", "refused: no\ufffd")


ODD = [10**12, -1, 10**400, 1e300, float("inf"), float("nan"), "11", None, True, [1], {"a": 1}, "\ud800"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(type(odd).__name__))
def test_no_field_of_a_reply_breaks_the_journal_or_the_table(odd, tmp_path):
    body = {
        "choices": [{"message": {"content": JSON, "refusal": None}, "finish_reason": odd}],
        "usage": {"prompt_tokens": odd, "completion_tokens": odd},
    }
    answers = [
        read(body, asked()),
        read({**body, "choices": odd}, asked()),
        read({"choices": [odd], "usage": odd}, asked()),
        read({"choices": [{"message": odd}]}, asked()),
        read(reply(odd), asked()),
        read(reply(None, refusal=odd, reasoning_content=odd, reasoning=odd), asked()),
        read({"error": odd}, asked()),
        read(odd, asked()),
        bounded(Answer(status="ok", logprobs=(odd,), token_counts=(odd,), latency_ms=odd, calls=odd)),
    ]
    rows = [{name: vars(answer).get(name) for name in ANSWERED.names} for answer in answers]
    pa.RecordBatch.from_pylist(rows, schema=ANSWERED)
    with journal(str(tmp_path / "j")) as add:
        for row in rows:
            add({**row, "request_key": "k", "answered_at": dt.datetime(2026, 1, 1)})
    assert answers[0].status == "ok"
    assert 0 <= answers[0].prompt_tokens <= 10_000_000


def test_depth_is_bounded_whatever_is_nested():
    deep = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert parsed(deep[1:-1])
    for text in (f"[{deep}]", f'{{"a": {deep}}}'):
        with pytest.raises(NoJson, match="deep"):
            parsed(text)
    assert read({"error": {"message": json.loads("[" * 150 + "]" * 150)}}, asked()).status == "malformed"
