"""Lines that a strict JSON parser refuses are repaired, or refused for the right reason. No Spark."""

import json
import time

import pytest

from pipelines.landing.json_text import MAX_DEPTH, depth, repaired


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('{"a": NaN, "b": -Infinity}', {"a": None, "b": "-Infinity"}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": 1e999}', {"a": "Infinity"}),
        ('{"a": ' + "9" * 5000 + "}", {"a": "Infinity"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ("{'a': None, 'b': \"Bob's\", 'c': [1, 2.5]}", {"a": None, "b": "Bob's", "c": [1, 2.5]}),
        ('{"a": "' + "[" * 500 + '"}', {"a": "[" * 500}),
        ('{"a": ' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}", ...),
    ],
)
def test_one_reading_is_possible(line: str, value: object):
    text, detail = repaired(line)
    assert (text is not None, detail) == (True, "")
    assert value is ... or json.loads(text) == value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' comes twice"),
        ("{'a': {'b': 1, 'b': 2}}", "the key 'b' comes twice"),
        ('{"a": 1}{"b": 2}', "a second value begins at character 9"),
        ('{"a": 1,}', "at character 9"),
        ('{"a": "cut o', "Unterminated string"),
        ("// comment", "Expecting value at character 1"),
        ('[{"a": 1}]', "a JSON array, not an object"),
        ("7", "a single value, not an object"),
        ('{"a": "\\ud83d"}', "half of a character"),
        ("{'a': __import__('os').name}", "neither a JSON object nor a Python dictionary"),
        ("{'a': {1, 2}}", "a value that JSON does not have"),
        ("{'a': " + "(" * 3000 + ")" * 3000 + "}", "nested 3001 levels deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested 100001 levels deep"),
        ('{"' + "k" * 10_000 + '": 1, "' + "k" * 10_000 + '": 1}', "comes twice"),
    ],
)
def test_the_reason_is_the_reason_and_short(line: str, told: str):
    text, detail = repaired(line)
    assert text is None
    assert told in detail
    assert len(detail) < 200


def test_depth_takes_time_like_the_line():
    began = time.process_time()
    for worst in ('"\\', '\\"', '"', "'\"", "["):
        depth('{"a": ' + worst * (500_000 // len(worst)))
    assert time.process_time() - began < 3
