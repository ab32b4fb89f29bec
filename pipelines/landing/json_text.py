"""Repair of lines that a strict JSON parser refuses, where only one reading is possible. Plain Python, no engine."""

import ast
import json
import math
import re
from typing import Any

MAX_DEPTH = 64
"""Nested objects and lists; parsers recurse, and a few hundred levels overflow the stack of a Java thread."""
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)|'(?:[^'\\]|\\.)*+(?:'|\\?\Z)", re.DOTALL)
_KEY_SHOWN = 60


class _Twice(Exception):
    """A key occurs twice."""


def depth(line: str) -> int:
    """How deep objects, lists and tuples of a line are nested; brackets within strings do not count."""
    deepest = now = 0
    for mark in _STRING.sub("", line):
        if mark in "[{(":
            now += 1
            deepest = max(deepest, now)
        elif mark in "]})":
            now -= 1
    return deepest


def repaired(line: str) -> tuple[str | None, str]:
    """A line as strict JSON of one object.

    NaN, which pandas writes for missing values, becomes null. An infinite number becomes a string, so that a reader who
    expects a number refuses it. Python literals, as in parts of Amazon's release of 2014, count as JSON. A byte order
    mark in front, left by concatenating files, is dropped.

    Returns:
        The JSON and an empty string, or None and what is wrong with the line.
    """
    line = line.removeprefix("\ufeff")
    if depth(line) > MAX_DEPTH:
        return None, f"objects or lists are nested {depth(line)} levels deep, the limit is {MAX_DEPTH}"
    try:
        value = _parsed(line)
    except _Twice as error:
        return None, f"the key {str(error)[:_KEY_SHOWN]!r} comes twice; which one is meant?"
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None, f"a second value begins at character {error.pos + 1}; write one object a line"
        return None, f"{error.msg.strip()[:120]} at character {error.pos + 1}; deliver the line again"
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, "neither a JSON object nor a Python dictionary; deliver the line again"
    if not isinstance(value, dict):
        kind = "a JSON array" if isinstance(value, list) else "a single value"
        return None, f"{kind}, not an object; write one object a line"
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return (
            None,
            "half of a character (a lone surrogate such as \\ud83d) is in a text; write the whole character",
        )
    except (ValueError, TypeError):
        return None, "a value that JSON does not have; deliver the line again"
    return text, ""


def _parsed(line: str) -> Any:
    if line.lstrip().startswith("{'"):
        tree = ast.parse(line.strip(), mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                _once([(str(key.value), None) for key in node.keys if isinstance(key, ast.Constant)])
        return ast.literal_eval(tree)
    return json.loads(line, parse_constant=_constant, parse_float=_number, parse_int=_whole, object_pairs_hook=_once)


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name


def _number(text: str) -> float | str:
    return "Infinity" if math.isinf(float(text)) else float(text)


def _whole(text: str) -> int | float | str:
    """Python refuses integers of thousands of digits; a number of more than 400 is infinite anyway."""
    return int(text) if len(text) < 400 else _number(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found
